import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { type Address, SSL_MODES } from './db/address.ts'
import { MIN_CONNECTIONS } from './db/pool.ts'
import { LOG_LEVELS } from './http/log.ts'

/** Makes `message` the fault of a setting. */
function refuse(context: z.RefinementCtx, message: string): never {
  context.addIssue(message)
  return z.NEVER
}

const integer = (minimum: number, maximum: number) =>
  z.string().transform((text, context) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= minimum && value <= maximum) return value
    return refuse(context, `must be a whole number from ${minimum} to ${maximum}`)
  })

const GIB = 2 ** 30
const DAY_MS = 86_400_000
/** The database is given up so long before DEADLINE_MS, for the answer to be there in time. */
const ANSWER_MARGIN_MS = 200
const milliseconds = (fallback: number, meaning: string) => integer(0, DAY_MS).default(fallback).describe(meaning)

const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, `must be one of ${values.join(', ')}`)

const databaseUrl = z.string().transform((text, context): Address => {
  const url = URL.parse(text)
  const host = url?.searchParams.get('host') || url?.hostname.replace(/^\[|\]$/g, '')
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || !host || url.pathname.length < 2) {
    return refuse(context, 'must be like postgres://user:password@host:5432/database')
  }
  const unknown = [...url.searchParams.keys()].find((name) => name !== 'sslmode' && name !== 'host')
  if (unknown !== undefined) return refuse(context, `has the parameter ${unknown}: only host and sslmode are supported`)
  const sslmode = url.searchParams.get('sslmode') ?? 'disable'
  const ssl = SSL_MODES.find((mode) => mode === sslmode)
  if (!ssl) return refuse(context, `has an sslmode that is none of ${SSL_MODES.join(', ')}`)
  try {
    const database = decodeURIComponent(url.pathname.slice(1))
    const user = decodeURIComponent(url.username) || 'postgres'
    return { host, port: Number(url.port || 5432), database, user, password: decodeURIComponent(url.password), ssl }
  } catch {
    return refuse(context, 'has an invalid percent-encoding: write % as %25')
  }
})

const passwordFile = z.string().transform((path, context) => {
  try {
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    return refuse(context, `cannot be read: ${error instanceof Error ? error.message : error}`)
  }
})

/** Every setting: its name in the environment, its default, its unit and its meaning. */
const Settings = z.object({
  PORT: integer(0, 65_535).default(3000).describe('Port to listen on; 0 picks a free one'),
  HOST: z.string().optional().describe('Address to listen on; all of them if unset'),
  LOG_LEVEL: oneOf(LOG_LEVELS).default('info').describe('debug logs each request'),

  DATABASE_URL: databaseUrl.optional().describe('postgres://user:password@host:port/database?sslmode=…; or its parts:'),
  DB_HOST: z.string().default('localhost').describe('Host of the database, or the folder of its socket'),
  DB_PORT: integer(1, 65_535).default(5432).describe('Port of the database'),
  DB_NAME: z.string().default('postgres').describe('Name of the database'),
  DB_USER: z.string().default('postgres').describe('Role to log in as'),
  DB_PASSWORD: z.string().optional().describe('Its password'),
  DB_PASSWORD_FILE: passwordFile.optional().describe('File that holds the password, such as a mounted Secret'),
  DB_SSLMODE: oneOf(SSL_MODES).default('disable').describe('disable, prefer, require or verify-full'),
  DB_CONNECTIONS: integer(MIN_CONNECTIONS, 100)
    .default(9)
    .describe('Connections for reads and writes; two of them are never given to writes'),
  DB_API_USER: z.string().optional().describe('Role that `migrate` creates for the API and grants its rights'),
  DB_API_PASSWORD: z.string().optional().describe('Its password'),
  DB_API_PASSWORD_FILE: passwordFile.optional().describe('File that holds its password'),
  MIGRATE_WAIT_MS: milliseconds(60_000, 'How long `migrate` waits for the database to come up, in ms'),

  DEADLINE_MS: integer(500, DAY_MS).default(5000).describe('Longest wait for the database before a 503, in ms'),
  MAX_BODY_BYTES: integer(1, GIB).default(262_144).describe('Largest request body, in bytes'),
  MAX_REQUESTS: integer(1, 1_000_000).default(1000).describe('Concurrent requests; more get 503'),
  MAX_STREAMS: integer(1, 100)
    .default(4)
    .describe('Concurrent streams of all users, on up to 4 more connections; more get 503'),
  STARTUP_WAIT_MS: milliseconds(2000, 'How long it waits for the database before it starts listening anyway, in ms'),
  DRAIN_DELAY_MS: milliseconds(2000, 'How long it keeps answering after SIGTERM, in ms'),
  SHUTDOWN_TIMEOUT_MS: milliseconds(20_000, 'Longest time from SIGTERM to exit, in ms'),
  KEEP_ALIVE_TIMEOUT_MS: milliseconds(620_000, 'How long an idle connection is kept, in ms'),
  HEADERS_TIMEOUT_MS: milliseconds(15_000, "Longest time for a request's headers to arrive, in ms"),
  REQUEST_TIMEOUT_MS: milliseconds(30_000, 'Longest time for a whole request to arrive, in ms'),
  IDLE_TIMEOUT_MS: milliseconds(60_000, 'How long a client may be idle in the middle of a request, in ms'),
})

/** The names of all settings, each with its meaning and its default. */
export const settings = Object.entries(Settings.shape).map(([name, schema]) => {
  const fallback = schema instanceof z.ZodDefault ? String(schema.def.defaultValue) : ''
  return { name, meaning: schema.description ?? '', fallback }
})

export type Config = ReturnType<typeof parseConfig>

/** What a person has to change in the settings; its message is one sentence for each. */
export class ConfigError extends Error {}

/**
 * The configuration that `env` holds; an empty variable counts as unset.
 * @throws ConfigError that names each variable at fault
 */
export function parseConfig(env: Record<string, string | undefined>) {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value))
  if (given.DB_WRITE_CONNECTIONS) {
    throw new ConfigError(
      'DB_WRITE_CONNECTIONS is no longer a setting: set DB_CONNECTIONS, the connections for reads and writes together.',
    )
  }
  // jitless: compiling the schema does not pay off for one value.
  const result = Settings.safeParse(given, { jitless: true })
  if (!result.success) {
    throw new ConfigError(result.error.issues.map(({ path, message }) => `${path.join('.')} ${message}.`).join(' '))
  }
  const s = result.data
  const address: Address = s.DATABASE_URL ?? {
    host: s.DB_HOST,
    port: s.DB_PORT,
    database: s.DB_NAME,
    user: s.DB_USER,
    password: s.DB_PASSWORD ?? s.DB_PASSWORD_FILE ?? '',
    ssl: s.DB_SSLMODE,
  }
  const apiPassword = s.DB_API_PASSWORD ?? s.DB_API_PASSWORD_FILE
  if (s.DB_API_USER !== undefined && apiPassword === undefined) {
    throw new ConfigError('DB_API_USER needs DB_API_PASSWORD or DB_API_PASSWORD_FILE.')
  }
  if (s.HEADERS_TIMEOUT_MS > s.REQUEST_TIMEOUT_MS && s.REQUEST_TIMEOUT_MS > 0) {
    throw new ConfigError('HEADERS_TIMEOUT_MS must not be more than REQUEST_TIMEOUT_MS, which includes it.')
  }
  if (s.DEADLINE_MS > s.IDLE_TIMEOUT_MS && s.IDLE_TIMEOUT_MS > 0) {
    throw new ConfigError('DEADLINE_MS must not be more than IDLE_TIMEOUT_MS, which cuts the connection.')
  }
  if (s.DRAIN_DELAY_MS > s.SHUTDOWN_TIMEOUT_MS) {
    throw new ConfigError('DRAIN_DELAY_MS must not be more than SHUTDOWN_TIMEOUT_MS, which includes it.')
  }
  const deadlineMs = s.DEADLINE_MS - ANSWER_MARGIN_MS
  return {
    logLevel: s.LOG_LEVEL,
    database: { address, connections: s.DB_CONNECTIONS, deadlineMs },
    app: { deadlineMs, maxBodyBytes: s.MAX_BODY_BYTES, maxRequests: s.MAX_REQUESTS, maxStreams: s.MAX_STREAMS },
    server: {
      port: s.PORT,
      host: s.HOST,
      drainDelayMs: s.DRAIN_DELAY_MS,
      shutdownTimeoutMs: s.SHUTDOWN_TIMEOUT_MS,
      keepAliveTimeoutMs: s.KEEP_ALIVE_TIMEOUT_MS,
      headersTimeoutMs: s.HEADERS_TIMEOUT_MS,
      requestTimeoutMs: s.REQUEST_TIMEOUT_MS,
      idleTimeoutMs: s.IDLE_TIMEOUT_MS,
    },
    startupWaitMs: s.STARTUP_WAIT_MS,
    migrate: {
      waitMs: s.MIGRATE_WAIT_MS,
      api: s.DB_API_USER === undefined ? undefined : { user: s.DB_API_USER, password: apiPassword ?? '' },
    },
  }
}
