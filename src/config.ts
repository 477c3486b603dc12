import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { checkRootCert, parseAddress, parseHost, SSL_MODES } from './db/address.ts'
import { MIN_CONNECTIONS } from './db/pool.ts'

const integer = (minimum: number, maximum: number) => {
  const error = `must be a whole number from ${minimum} to ${maximum}`
  return z.string().regex(/^\d+$/, error).pipe(z.coerce.number<string>().min(minimum, error).max(maximum, error))
}

const text = z.string().optional()
const GIB = 2 ** 30
const DAY_MS = 86_400_000
/** The database is given up so long before DEADLINE_MS, for the answer to be there in time. */
const ANSWER_MARGIN_MS = 200
const milliseconds = (fallback: number, meaning: string) => integer(0, DAY_MS).default(fallback).describe(meaning)

const SHARE = /^(1|0|0?\.\d+)$/
const share = z.string().regex(SHARE, 'must be a number from 0 to 1').transform(Number)

const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, `must be one of ${values.join(', ')}`)

/** A setting that `read` makes of text. What it throws says what is wrong with the text. */
const readBy = <T>(read: (text: string) => T) =>
  z.string().transform((text, context) => {
    try {
      return read(text)
    } catch (error) {
      context.addIssue(`cannot be read: ${error instanceof Error ? error.message : error}`)
      return z.NEVER
    }
  })

const databaseUrl = readBy(parseAddress).optional()
const host = readBy(parseHost)
const passwordFile = readBy((path) => readFileSync(path, 'utf8').replace(/\r?\n$/, '')).optional()

/** A list, with spaces or commas between two of it. */
const listOf = <T extends z.ZodType>(item: T) =>
  z.preprocess((list) => String(list).split(/[\s,]+/), z.array(item)).optional()

const rate = z.string().regex(/^[1-9]\d{0,5}\/[1-9]\d{0,4}$/, 'must be requests/seconds, from 1/1 to 999999/99999')
const network = z.union([z.cidrv4(), z.cidrv6()], 'must be networks, such as 10.0.0.0/8 or 203.0.113.5/32')

const https = z.url({ protocol: /^https$/ })
const localHttp = z.url({ protocol: /^http$/, hostname: /^(localhost|127(\.\d+){3}|\[::1\])$/ })
/** Where nobody on the way can change what comes from there. */
export const secureUrl = z.union([https, localHttp], 'must be a URL with https; http is only for this machine')
/** A scope (RFC 6749, section 3.3). */
const scope = z.string().regex(/^[!#-[\]-~]+$/, 'has a character that no scope may have')
/** Whether it is as browsers send it (RFC 6454, section 6.2). URLs may have a * in their host. */
const isOrigin = (text: string) => /^https?:[^*]+$/.test(text) && URL.parse(text)?.origin === text
const origin = z.string().refine(isOrigin, 'must be origins without a path, such as https://app.example')

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
const LOG_FORMATS = ['auto', 'json', 'pretty', 'google'] as const

const url = z.url({ protocol: /^https?$/, error: 'must be a URL with http or https' })
const RATIO_SAMPLERS = ['always_on', 'always_off', 'traceidratio'] as const
const SAMPLERS = [...RATIO_SAMPLERS, ...RATIO_SAMPLERS.map((name) => `parentbased_${name}` as const)]

/** Every setting: its name in the environment, its default, its unit and its meaning. */
const Settings = z.object({
  PORT: integer(0, 65_535).default(3000).describe('Port to listen on; 0 picks a free one'),
  HOST: text.describe('Address to listen on; all of them if unset'),
  PAGE: oneOf(['on', 'off']).default('on').describe('on or off: pages for people at /users'),
  // Whoever sends requests here learns meanwhile to stop.
  DRAIN_DELAY_MS: milliseconds(2000, 'How long it keeps answering after SIGTERM, in ms'),
  SHUTDOWN_TIMEOUT_MS: integer(1, DAY_MS).default(20_000).describe('Longest time from SIGTERM to exit, in ms'),
  // 0 turns off any of these four time-outs. A proxy in front must be the first to close an idle connection: Google's load
  // balancer waits 600 s.
  KEEP_ALIVE_TIMEOUT_MS: milliseconds(620_000, 'How long an idle connection is kept, in ms'),
  HEADERS_TIMEOUT_MS: milliseconds(15_000, "Longest time for a request's headers to arrive, in ms"),
  REQUEST_TIMEOUT_MS: milliseconds(30_000, 'Longest time for a whole request, or a line of many, to arrive, in ms'),
  IDLE_TIMEOUT_MS: milliseconds(60_000, 'How long a client may be idle in the middle of a request, in ms'),

  CORS_ORIGINS: listOf(origin).describe('Origins whose pages may use the API, by spaces or commas; none if unset'),

  LOG_LEVEL: oneOf(LOG_LEVELS).default('info').describe('fatal, error, warn, info, debug, trace or silent'),
  LOG_FORMAT: oneOf(LOG_FORMATS).default('auto').describe('json, google, pretty, or auto: pretty on a terminal'),
  LOG_REQUESTS: share.default(0).describe('Share of the requests that are logged, from 0 to 1'),
  AUDIT_LOG: oneOf(['on', 'off']).default('off').describe('on or off: a line of the log for each change of a user'),
  SLOW_REQUEST_MS: milliseconds(1000, 'A request that takes so long is logged, in ms; 0 logs none'),
  METRICS_PORT: integer(0, 65_535).optional().describe('Port of `/metrics`; nothing is measured if unset'),
  STARTUP_WAIT_MS: milliseconds(2000, 'How long it waits for the database before it starts listening anyway, in ms'),
  DEADLINE_MS: integer(500, DAY_MS).default(5000).describe('Longest wait for the database before a 503, in ms'),
  MAX_BODY_BYTES: integer(1, GIB).default(262_144).describe('Largest request body, or line of many, in bytes'),
  MAX_CONNECTIONS: integer(1, 1_000_000).default(2000).describe('Open connections; more are closed at once'),
  MAX_REQUESTS: integer(1, 1_000_000).default(1000).describe('Concurrent requests; more get 503'),
  MAX_STREAMS: integer(1, 100).default(4).describe('Concurrent streams, out or in; more get 503'),
  RATE_LIMIT: rate.optional().describe('Requests of a client in so many seconds, such as 100/60; no limit if unset'),
  TRUSTED_PROXIES: listOf(network).describe('Networks of the proxies whose X-Forwarded-For names the client'),

  DATABASE_URL: databaseUrl.describe('postgres://user:password@host:port/database?sslmode=…; or its parts:'),
  DB_HOST: host.default('localhost').describe('Host of the database, or the folder of its socket'),
  DB_PORT: integer(1, 65_535).default(5432).describe('Port of the database'),
  DB_NAME: z.string().default('postgres').describe('Name of the database'),
  DB_USER: z.string().default('postgres').describe('Role to log in as'),
  DB_PASSWORD: text.describe('Its password'),
  DB_PASSWORD_FILE: passwordFile.describe('File that holds the password, such as a mounted Secret'),
  DB_SSLMODE: oneOf(SSL_MODES).default('disable').describe('disable, prefer, require, verify-ca or verify-full'),
  DB_SSLROOTCERT: readBy(checkRootCert).optional().describe("File of the certificates that may vouch for the server's"),
  DATABASE_READ_URL: databaseUrl.describe('URL of the replicas that answer pages; or the parts that differ:'),
  DB_READ_HOST: host.optional().describe('Host of the replicas; none are asked if unset'),
  DB_READ_PORT: integer(1, 65_535).optional().describe("Their port; the primary's if unset"),
  DB_READ_MAX_LAG_MS: integer(500, 3_600_000).default(2000).describe('How old a page from a replica may be, in ms'),
  DB_CONNECTIONS: integer(MIN_CONNECTIONS, 100).default(9).describe('Connections; writes never get two of them'),
  DB_API_USER: text.describe('Role that `migrate` creates for the API and grants its rights'),
  DB_API_PASSWORD: text.describe('Its password'),
  DB_API_PASSWORD_FILE: passwordFile.describe('File that holds its password'),
  MIGRATE_WAIT_MS: milliseconds(60_000, 'How long `migrate` waits for the database and for locks, in ms'),

  AUTH_ISSUER: secureUrl.optional().describe('Issuer whose access tokens are taken; none are if unset'),
  AUTH_AUDIENCE: text.describe('`aud` of its tokens: the name of this service there'),
  AUTH_JWKS_URL: secureUrl.optional().describe("URL of the issuer's keys; asked of the issuer if unset"),
  AUTH_TOKEN_TYPE: oneOf(['at+jwt', 'JWT']).default('at+jwt').describe('at+jwt, or JWT for tokens of either type'),
  AUTH_READ_SCOPE: scope.default('users:read').describe('Scope that a token needs to read'),
  AUTH_WRITE_SCOPE: scope.default('users:write').describe('Scope that a token needs to create, change and delete'),
  AUTH_IAP_AUDIENCE: text.describe("`aud` of Identity-Aware Proxy's assertions; none are taken if unset"),
  AUTH_IAP_ISSUER: z.string().default('https://cloud.google.com/iap').describe('Issuer of the assertions'),
  AUTH_IAP_JWKS_URL: secureUrl.default('https://www.gstatic.com/iap/verify/public_key-jwk').describe('URL of its keys'),
  AUTH_IAP_SCOPES: listOf(scope).describe('Scopes of who comes through it; only AUTH_READ_SCOPE if unset'),

  // OpenTelemetry's own variables, as far as its packages leave them to us: they read the others.
  OTEL_EXPORTER_OTLP_ENDPOINT: url.optional().describe('Collector that takes spans; there are none if unset'),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url.optional().describe('The same, with the whole path'),
  OTEL_EXPORTER_OTLP_PROTOCOL: z.string().default('http/json').describe('http/json is the only one'),
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: text.describe('The same, for spans alone'),
  OTEL_TRACES_SAMPLER: oneOf(SAMPLERS).default('parentbased_always_on').describe('How traces are chosen'),
  OTEL_TRACES_SAMPLER_ARG: share.default(1).describe('Share of the traces that a traceidratio sampler takes'),
  OTEL_SDK_DISABLED: z.stringbool('must be true or false').default(false).describe('true for no spans at all'),
})

/** Settings that must not be more than others, unless those are 0, and why. */
const ORDER = [
  ['HEADERS_TIMEOUT_MS', 'REQUEST_TIMEOUT_MS', 'which includes it'],
  ['DEADLINE_MS', 'IDLE_TIMEOUT_MS', 'which cuts the connection'],
  ['DRAIN_DELAY_MS', 'SHUTDOWN_TIMEOUT_MS', 'which includes it'],
] as const

/** The names of all settings, each with its meaning and its default. */
export const settings = Object.entries(Settings.shape).map(([name, schema]) => {
  const fallback = schema instanceof z.ZodDefault ? String(schema.def.defaultValue) : ''
  return { name, meaning: schema.description ?? '', fallback }
})

/** Every setting by its name, and what is made of several. */
export type Config = ReturnType<typeof parseConfig>

/** What a person has to change in the settings; its message is one sentence for each. */
export class ConfigError extends Error {}

/** Which traces are recorded; undefined for none. */
function tracingOf(s: z.output<typeof Settings>) {
  const endpoint = s.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? s.OTEL_EXPORTER_OTLP_ENDPOINT
  if (!endpoint || s.OTEL_SDK_DISABLED) return undefined
  if ((s.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL ?? s.OTEL_EXPORTER_OTLP_PROTOCOL) !== 'http/json') {
    throw new ConfigError('OTEL_EXPORTER_OTLP_PROTOCOL must be http/json, which collectors take on port 4318.')
  }
  const ratio = { always_on: 1, always_off: 0 }[s.OTEL_TRACES_SAMPLER.replace('parentbased_', '')]
  return { ratio: ratio ?? s.OTEL_TRACES_SAMPLER_ARG, parentBased: s.OTEL_TRACES_SAMPLER.startsWith('parentbased_') }
}

export type AuthOptions = NonNullable<ReturnType<typeof authOf>>
/** Which tokens of an issuer are taken. Its keys are where it says if there is no `jwksUrl`; claims name scopes if there are none. */
export type TokenRules = NonNullable<AuthOptions['tokens' | 'iap']>

/** Whose tokens are taken, and for what; undefined where nobody needs one. */
function authOf(s: z.output<typeof Settings>, given: object) {
  const { AUTH_ISSUER: issuer, AUTH_AUDIENCE: audience, AUTH_JWKS_URL: jwksUrl, AUTH_IAP_AUDIENCE: iapAudience } = s
  const named = settings.find(({ name }) => name.startsWith('AUTH_') && name in given)
  if (!named) return undefined
  if (!issuer && !iapAudience) throw new ConfigError(`${named.name} needs AUTH_ISSUER or AUTH_IAP_AUDIENCE.`)
  if (!issuer !== !audience) throw new ConfigError('AUTH_ISSUER and AUTH_AUDIENCE go together.')
  const { AUTH_READ_SCOPE: readScope, AUTH_WRITE_SCOPE: writeScope, AUTH_IAP_SCOPES: iapScopes = [readScope] } = s
  const types = s.AUTH_TOKEN_TYPE === 'JWT' ? ['jwt', 'at+jwt'] : ['at+jwt']
  const tokens = issuer && audience ? { issuer, audience, jwksUrl, types, scopes: undefined } : undefined
  const ofIap = { issuer: s.AUTH_IAP_ISSUER, jwksUrl: s.AUTH_IAP_JWKS_URL, types: ['jwt'], scopes: iapScopes }
  const iap = iapAudience ? { audience: iapAudience, ...ofIap } : undefined
  return { readScope, writeScope, tokens, iap }
}

/**
 * The configuration that `env` holds; an empty variable counts as unset.
 * @throws ConfigError that names each variable at fault
 */
export function parseConfig(env: Record<string, string | undefined>) {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value))
  if (given.DB_WRITE_CONNECTIONS) throw new ConfigError('DB_WRITE_CONNECTIONS is now part of DB_CONNECTIONS.')
  // jitless: compiling the schema does not pay off for one value.
  const result = Settings.safeParse(given, { jitless: true })
  if (!result.success) {
    throw new ConfigError(result.error.issues.map(({ path, message }) => `${String(path[0])} ${message}.`).join(' '))
  }
  const s = result.data
  for (const [name, bound, why] of ORDER) {
    if (s[name] > s[bound] && s[bound] > 0) throw new ConfigError(`${name} must not be more than ${bound}, ${why}.`)
  }
  if (s.METRICS_PORT === s.PORT && s.PORT > 0) throw new ConfigError('METRICS_PORT must not be the same as PORT.')
  if (s.DB_SSLROOTCERT && s.DB_SSLMODE === 'disable') throw new ConfigError('DB_SSLROOTCERT needs a DB_SSLMODE.')
  const server = { host: s.DB_HOST, port: s.DB_PORT, ssl: s.DB_SSLMODE, rootCert: s.DB_SSLROOTCERT }
  const login = { database: s.DB_NAME, user: s.DB_USER, password: s.DB_PASSWORD ?? s.DB_PASSWORD_FILE ?? '' }
  const address = s.DATABASE_URL ?? { ...server, ...login }
  const readParts = s.DB_READ_HOST && { ...address, host: s.DB_READ_HOST, port: s.DB_READ_PORT ?? address.port }
  const readAddress = s.DATABASE_READ_URL ?? (readParts || undefined)
  if (s.DB_READ_PORT && !readAddress) throw new ConfigError('DB_READ_PORT needs DB_READ_HOST.')
  const apiPassword = s.DB_API_PASSWORD ?? s.DB_API_PASSWORD_FILE ?? ''
  if (s.DB_API_USER && !apiPassword) throw new ConfigError('DB_API_USER needs DB_API_PASSWORD or DB_API_PASSWORD_FILE.')
  /** What each request has for all that it needs of the database, in ms. */
  const deadlineMs = s.DEADLINE_MS - ANSWER_MARGIN_MS
  const api = s.DB_API_USER ? { user: s.DB_API_USER, password: apiPassword, deadlineMs } : undefined
  return { ...s, address, readAddress, deadlineMs, api, tracing: tracingOf(s), auth: authOf(s, given) }
}
