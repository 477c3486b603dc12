import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { checkRootCert, parseAddress, parseHost, SSL_MODES } from './db/address.ts'
import { MIN_CONNECTIONS } from './db/pool.ts'

/** A setting and its default. Its schema is made if it is set: a start pays for no other. */
const setting = <T>(schema: () => z.ZodType<T>, meaning: string, fallback: T) => ({ schema, meaning, fallback })
const optional = <T>(schema: () => z.ZodType<T>, meaning: string) => setting<T | undefined>(schema, meaning, undefined)

const integer = (minimum: number, maximum: number) => {
  const error = `must be a whole number from ${minimum} to ${maximum}`
  return z.string().regex(/^\d+$/, error).pipe(z.coerce.number<string>().min(minimum, error).max(maximum, error))
}

const DAY_MS = 86_400_000
/** The database is given up so long before DEADLINE_MS, for the answer to be there in time. */
const ANSWER_MARGIN_MS = 200
const milliseconds = (fallback: number, meaning: string) => setting(() => integer(0, DAY_MS), meaning, fallback)

const SHARE = /^(1|0|0?\.\d+)$/
const share = () => z.string().regex(SHARE, 'must be a number from 0 to 1').transform(Number)

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

const databaseUrl = () => readBy(parseAddress)
const passwordFile = () => readBy((path) => readFileSync(path, 'utf8').replace(/\r?\n$/, ''))

/** A list, with spaces or commas between two of it. */
const listOf = <T>(item: z.ZodType<T>) => z.preprocess((list) => String(list).split(/[\s,]+/), z.array(item))

const rate = () => z.string().regex(/^[1-9]\d{0,5}\/[1-9]\d{0,4}$/, 'must be requests/seconds, 1/1 to 999999/99999')
const network = () => z.union([z.cidrv4(), z.cidrv6()], 'must be networks, such as 10.0.0.0/8 or 203.0.113.5/32')

const https = () => z.url({ protocol: /^https$/ })
const local = () => z.url({ protocol: /^http$/, hostname: /^(localhost|127(\.\d+){3}|\[::1\])$/ })
/** Where nobody on the way can change what comes from there. */
export const secureUrl = () => z.union([https(), local()], 'must be a URL with https; http is only for this machine')
/** A scope (RFC 6749, section 3.3). */
const scope = () => z.string().regex(/^[!#-[\]-~]+$/, 'has a character that no scope may have')
/** Whether it is as browsers send it (RFC 6454, section 6.2). URLs may have a * in their host. */
const isOrigin = (text: string) => /^https?:[^*]+$/.test(text) && URL.parse(text)?.origin === text
const origins = () => listOf(z.string().refine(isOrigin, 'must be origins without a path, such as https://app.example'))

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
const LOG_FORMATS = ['auto', 'json', 'pretty', 'google'] as const

const url = () => z.url({ protocol: /^https?$/, error: 'must be a URL with http or https' })
const RATIO_SAMPLERS = ['always_on', 'always_off', 'traceidratio'] as const
const SAMPLERS = [...RATIO_SAMPLERS, ...RATIO_SAMPLERS.map((name) => `parentbased_${name}` as const)]

/** Every setting: its name in the environment, its default, its unit and its meaning. */
const SETTINGS = {
  PORT: setting(() => integer(0, 65_535), 'Port to listen on; 0 picks a free one', 3000),
  HOST: optional(z.string, 'Address to listen on; all of them if unset'),
  PAGE: setting(() => oneOf(['on', 'off']), 'on or off: pages for people at /users', 'on'),
  // Whoever sends requests here learns meanwhile to stop.
  DRAIN_DELAY_MS: milliseconds(2000, 'How long it keeps answering after SIGTERM, in ms'),
  SHUTDOWN_TIMEOUT_MS: setting(() => integer(1, DAY_MS), 'Longest time from SIGTERM to exit, in ms', 20_000),
  // 0 turns off any of these four time-outs. A proxy in front must be the first to close an idle connection: Google's load
  // balancer waits 600 s.
  KEEP_ALIVE_TIMEOUT_MS: milliseconds(620_000, 'How long an idle connection is kept, in ms'),
  HEADERS_TIMEOUT_MS: milliseconds(15_000, "Longest time for a request's headers to arrive, in ms"),
  REQUEST_TIMEOUT_MS: milliseconds(30_000, 'Longest time for a whole request, or a line of many, to arrive, in ms'),
  IDLE_TIMEOUT_MS: milliseconds(60_000, 'How long a client may be idle in the middle of a request, in ms'),

  CORS_ORIGINS: optional(origins, 'Origins whose pages may use the API, by spaces or commas; none if unset'),

  LOG_LEVEL: setting(() => oneOf(LOG_LEVELS), 'fatal, error, warn, info, debug, trace or silent', 'info'),
  LOG_FORMAT: setting(() => oneOf(LOG_FORMATS), 'json, google, pretty, or auto: pretty on a terminal', 'auto'),
  LOG_REQUESTS: setting(share, 'Share of the requests that are logged, from 0 to 1', 0),
  AUDIT_LOG: setting(() => oneOf(['on', 'off']), 'on or off: a line of the log for each change of a user', 'off'),
  SLOW_REQUEST_MS: milliseconds(1000, 'A request that takes so long is logged, in ms; 0 logs none'),
  METRICS_PORT: optional(() => integer(0, 65_535), 'Port of `/metrics`; nothing is measured if unset'),
  STARTUP_WAIT_MS: milliseconds(2000, 'How long it waits for the database before it starts listening anyway, in ms'),
  DEADLINE_MS: setting(() => integer(500, DAY_MS), 'Longest wait for the database before a 503, in ms', 5000),
  MAX_BODY_BYTES: setting(() => integer(1, 2 ** 30), 'Largest request body, or line of many, in bytes', 262_144),
  MAX_CONNECTIONS: setting(() => integer(1, 1_000_000), 'Open connections; more are closed at once', 2000),
  MAX_REQUESTS: setting(() => integer(1, 1_000_000), 'Concurrent requests; more get 503', 1000),
  MAX_STREAMS: setting(() => integer(1, 100), 'Concurrent streams, out or in; more get 503', 4),
  RATE_LIMIT: optional(rate, 'Requests of a client in so many seconds, such as 100/60; no limit if unset'),
  TRUSTED_PROXIES: optional(() => listOf(network()), 'Networks of the proxies whose X-Forwarded-For names the client'),

  DATABASE_URL: optional(databaseUrl, 'postgres://user:password@host:port/database?sslmode=…; or its parts:'),
  DB_HOST: setting(() => readBy(parseHost), 'Host of the database, or the folder of its socket', 'localhost'),
  DB_PORT: setting(() => integer(1, 65_535), 'Port of the database', 5432),
  DB_NAME: setting(z.string, 'Name of the database', 'postgres'),
  DB_USER: setting(z.string, 'Role to log in as', 'postgres'),
  DB_PASSWORD: optional(z.string, 'Its password'),
  DB_PASSWORD_FILE: optional(passwordFile, 'File that holds the password, such as a mounted Secret'),
  DB_SSLMODE: setting(() => oneOf(SSL_MODES), 'disable, prefer, require, verify-ca or verify-full', 'disable'),
  DB_SSLROOTCERT: optional(() => readBy(checkRootCert), "File of the certificates that may vouch for the server's"),
  DATABASE_READ_URL: optional(databaseUrl, 'URL of the replicas that answer pages; or the parts that differ:'),
  DB_READ_HOST: optional(() => readBy(parseHost), 'Host of the replicas; none are asked if unset'),
  DB_READ_PORT: optional(() => integer(1, 65_535), "Their port; the primary's if unset"),
  DB_READ_MAX_LAG_MS: setting(() => integer(500, 3_600_000), 'How old a page from a replica may be, in ms', 2000),
  DB_CONNECTIONS: setting(() => integer(MIN_CONNECTIONS, 100), 'Connections; writes never get two of them', 9),
  DB_API_USER: optional(z.string, 'Role that `migrate` creates for the API and grants its rights'),
  DB_API_PASSWORD: optional(z.string, 'Its password'),
  DB_API_PASSWORD_FILE: optional(passwordFile, 'File that holds its password'),
  MIGRATE_WAIT_MS: milliseconds(60_000, 'How long `migrate` waits for the database and for locks, in ms'),

  AUTH_ISSUER: optional(secureUrl, 'Issuer whose access tokens are taken; none are if unset'),
  AUTH_AUDIENCE: optional(z.string, '`aud` of its tokens: the name of this service there'),
  AUTH_JWKS_URL: optional(secureUrl, "URL of the issuer's keys; asked of the issuer if unset"),
  AUTH_TOKEN_TYPE: setting(() => oneOf(['at+jwt', 'JWT']), 'at+jwt, or JWT for tokens of either type', 'at+jwt'),
  AUTH_READ_SCOPE: setting(scope, 'Scope that a token needs to read', 'users:read'),
  AUTH_WRITE_SCOPE: setting(scope, 'Scope that a token needs to create, change and delete', 'users:write'),
  AUTH_IAP_AUDIENCE: optional(z.string, "`aud` of Identity-Aware Proxy's assertions; none are taken if unset"),
  AUTH_IAP_ISSUER: setting(z.string, 'Issuer of the assertions', 'https://cloud.google.com/iap'),
  AUTH_IAP_JWKS_URL: setting(secureUrl, 'URL of its keys', 'https://www.gstatic.com/iap/verify/public_key-jwk'),
  AUTH_IAP_SCOPES: optional(() => listOf(scope()), 'Scopes of who comes through it; only AUTH_READ_SCOPE if unset'),

  // OpenTelemetry's own variables, as far as its packages leave them to us: they read the others.
  OTEL_EXPORTER_OTLP_ENDPOINT: optional(url, 'Collector that takes spans; there are none if unset'),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: optional(url, 'The same, with the whole path'),
  OTEL_EXPORTER_OTLP_PROTOCOL: setting(z.string, 'http/json is the only one', 'http/json'),
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: optional(z.string, 'The same, for spans alone'),
  OTEL_TRACES_SAMPLER: setting(() => oneOf(SAMPLERS), 'How traces are chosen', 'parentbased_always_on'),
  OTEL_TRACES_SAMPLER_ARG: setting(share, 'Share of the traces that a traceidratio sampler takes', 1),
  OTEL_SDK_DISABLED: setting(() => z.stringbool('must be true or false'), 'true for no spans at all', false),
}

/** Settings that must not be more than others, unless those are 0, and why. */
const ORDER = [
  ['HEADERS_TIMEOUT_MS', 'REQUEST_TIMEOUT_MS', 'which includes it'],
  ['DEADLINE_MS', 'IDLE_TIMEOUT_MS', 'which cuts the connection'],
  ['DRAIN_DELAY_MS', 'SHUTDOWN_TIMEOUT_MS', 'which includes it'],
] as const

/** The names of all settings, each with its meaning and its default. */
export const settings = Object.entries(SETTINGS).map(([name, { meaning, fallback }]) => {
  return { name, meaning, fallback: String(fallback ?? '') }
})

type Values = { [Name in keyof typeof SETTINGS]: (typeof SETTINGS)[Name]['fallback'] }

/** Every setting by its name, and what is made of several. */
export type Config = ReturnType<typeof parseConfig>

/** What a person has to change in the settings; its message is one sentence for each. */
export class ConfigError extends Error {}

/** Which traces are recorded; undefined for none. */
function tracingOf(s: Values) {
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
function authOf(s: Values, env: NodeJS.ProcessEnv) {
  const { AUTH_ISSUER: issuer, AUTH_AUDIENCE: audience, AUTH_JWKS_URL: jwksUrl, AUTH_IAP_AUDIENCE: iapAudience } = s
  const named = settings.find(({ name }) => name.startsWith('AUTH_') && env[name])
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
export function parseConfig(env: NodeJS.ProcessEnv) {
  if (env.DB_WRITE_CONNECTIONS) throw new ConfigError('DB_WRITE_CONNECTIONS is now part of DB_CONNECTIONS.')
  const faults: string[] = []
  const values = Object.entries(SETTINGS).map(([name, { schema, fallback }]) => {
    if (!env[name]) return [name, fallback]
    const { data, error } = schema().safeParse(env[name])
    for (const { message } of error?.issues ?? []) faults.push(`${name} ${message}.`)
    return [name, data]
  })
  if (faults.length > 0) throw new ConfigError(faults.join(' '))
  const s: Values = Object.fromEntries(values)
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
  return { ...s, address, readAddress, deadlineMs, api, tracing: tracingOf(s), auth: authOf(s, env) }
}
