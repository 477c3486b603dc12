import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ConfigError, parseConfig, settings } from './config.ts'

const file = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')

function passwordFile(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'password-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'password'), text)
  return join(folder, 'password')
}

describe('the database', () => {
  test('is named by a URL', () => {
    const { address } = parseConfig({
      DATABASE_URL: 'postgresql://u%40x:p%2F1@db.example:6432/app?sslmode=verify-full',
    })
    expect(address).toEqual({
      host: 'db.example',
      port: 6432,
      database: 'app',
      user: 'u@x',
      password: 'p/1',
      ssl: 'verify-full',
    })
  })

  test('is named by its parts, the password from a file', () => {
    const path = passwordFile('s3cret\n')
    const parts = {
      DB_HOST: 'users-db',
      DB_PORT: '5433',
      DB_NAME: 'users',
      DB_USER: 'users_api',
      DB_PASSWORD_FILE: path,
    }
    expect(parseConfig(parts).address).toEqual({
      host: 'users-db',
      port: 5433,
      database: 'users',
      user: 'users_api',
      password: 's3cret',
      ssl: 'disable',
    })
  })

  test('DB_PASSWORD comes before DB_PASSWORD_FILE, unless it is empty', () => {
    const DB_PASSWORD_FILE = passwordFile('of the file')
    const password = (DB_PASSWORD: string) => parseConfig({ DB_PASSWORD, DB_PASSWORD_FILE }).address.password
    expect([password('of the variable'), password('')]).toEqual(['of the variable', 'of the file'])
  })

  test('is PostgreSQL on this machine where nothing is said', () => {
    const { address } = parseConfig({})
    expect([address.host, address.port, address.user, address.database]).toEqual([
      'localhost',
      5432,
      'postgres',
      'postgres',
    ])
  })
})

test('replicas are named by their host, with the other parts of the primary, or by a URL; without either there are none', () => {
  const DATABASE_URL = 'postgres://u:p@users-db-rw:6432/users?sslmode=verify-full'
  const address = parseConfig({ DATABASE_URL }).address
  const read = (env: Record<string, string>) => parseConfig({ DATABASE_URL, ...env }).readAddress
  expect(read({})).toBeUndefined()
  expect(read({ DB_READ_HOST: 'users-db-ro' })).toEqual({ ...address, host: 'users-db-ro' })
  expect(read({ DB_READ_HOST: 'users-db-ro', DB_READ_PORT: '5433' })).toEqual({
    ...address,
    host: 'users-db-ro',
    port: 5433,
  })
  const DATABASE_READ_URL = 'postgres://v:q@users-db-ro/users?sslmode=require'
  expect(read({ DATABASE_READ_URL, DB_READ_HOST: 'other' })).toMatchObject({
    host: 'users-db-ro',
    user: 'v',
    ssl: 'require',
  })
})

test('a variable that is empty counts as left out', () => {
  expect(parseConfig({ PORT: '', DATABASE_URL: '' })).toEqual(parseConfig({}))
})

test('no time-out at all is none that is too short', () => {
  const env = { REQUEST_TIMEOUT_MS: '0', HEADERS_TIMEOUT_MS: '60000', IDLE_TIMEOUT_MS: '0', DEADLINE_MS: '60001' }
  expect(parseConfig(env).REQUEST_TIMEOUT_MS).toBe(0)
})

test.each([
  ['PORT', 'abc'],
  ['PORT', '65536'],
  ['PORT', '-1'],
  ['LOG_LEVEL', 'loud'],
  ['DATABASE_URL', 'mysql://a/b'],
  ['DATABASE_URL', 'nonsense'],
  ['DATABASE_URL', 'postgres://host'],
  ['DATABASE_URL', 'postgres://u:p%@host/db'],
  ['DATABASE_URL', 'postgres://u:p%ff@host/db'],
  ['HEADERS_TIMEOUT_MS', '60000'],
  ['DRAIN_DELAY_MS', '60000'],
  ['DATABASE_URL', 'postgres://host/db?sslmode=maybe'],
  ['DATABASE_URL', 'postgres://host/db?sslrootcert=ca.pem'],
  ['DB_PASSWORD_FILE', '/does/not/exist'],
  ['DB_SSLMODE', 'maybe'],
  ['DB_HOST', 'host1,host2'],
  ['DB_SSLROOTCERT', '/does/not/exist'],
  ['DB_SSLROOTCERT', fileURLToPath(import.meta.url)],
  ['DEADLINE_MS', '1.5'],
  ['DEADLINE_MS', '60001'],
  ['DB_WRITE_CONNECTIONS', '4'],
  ['DATABASE_READ_URL', 'nonsense'],
  ['DB_READ_HOST', 'host1,host2'],
  ['DB_READ_PORT', '5433'],
  ['DB_READ_MAX_LAG_MS', '499'],
  ['MAX_BODY_BYTES', '0'],
  ['RATE_LIMIT', '100'],
  ['RATE_LIMIT', '0/60'],
  ['RATE_LIMIT', '100/0'],
  ['RATE_LIMIT', '1.5/60'],
  ['RATE_LIMIT', '100/60s'],
  ['TRUSTED_PROXIES', '10.0.0.1'],
  ['TRUSTED_PROXIES', '10.0.0.0/'],
  ['TRUSTED_PROXIES', '10.0.0.0/33'],
  ['TRUSTED_PROXIES', '10.0.0.0/8,'],
  ['TRUSTED_PROXIES', '10.0.0.0/8, 2001:db8::/129'],
  ['TRUSTED_PROXIES', 'loopback'],
  ['DB_API_USER', 'users_api'],
  ['METRICS_PORT', '3000'],
  ['LOG_FORMAT', 'xml'],
  ['LOG_REQUESTS', '1.5'],
  ['LOG_REQUESTS', 'all'],
  ['METRICS_PORT', '65536'],
  ['MAX_CONNECTIONS', '0'],
  ['CORS_ORIGINS', '*'],
  ['CORS_ORIGINS', 'null'],
  ['CORS_ORIGINS', 'app.example'],
  ['CORS_ORIGINS', 'https://app.example/'],
  ['CORS_ORIGINS', 'https://app.example:443'],
  ['CORS_ORIGINS', 'https://*.app.example, ftp://app.example'],
  ['CORS_ORIGINS', 'https://app.example https://App.example'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
  ['OTEL_TRACES_SAMPLER', 'sometimes'],
  ['OTEL_TRACES_SAMPLER_ARG', '2'],
  ['AUTH_ISSUER', 'http://issuer.example'],
  ['AUTH_ISSUER', 'issuer.example'],
  ['AUTH_ISSUER', 'https://issuer.example'],
  ['AUTH_AUDIENCE', 'users-api'],
  ['AUTH_JWKS_URL', 'http://issuer.example/jwks'],
  ['AUTH_JWKS_URL', 'https://issuer.example/jwks'],
  ['AUTH_TOKEN_TYPE', 'jwt'],
  ['AUTH_READ_SCOPE', 'users read'],
  ['AUTH_READ_SCOPE', 'users:"read"'],
  ['AUTH_IAP_SCOPES', 'users:read'],
])('%s=%s is refused in a sentence that names it', (name, value) => {
  expect(() => parseConfig({ [name]: value })).toThrow(ConfigError)
  expect(() => parseConfig({ [name]: value })).toThrow(new RegExp(`^${name} .+\\.$`))
})

test('a single address, and an origin with a slash, are told what is missing and what is too much', () => {
  expect(() => parseConfig({ TRUSTED_PROXIES: '203.0.113.5' })).toThrow('such as 10.0.0.0/8 or 203.0.113.5/32')
  expect(() => parseConfig({ CORS_ORIGINS: 'https://app.example/' })).toThrow('without a path')
})

test('TRUSTED_PROXIES is a list of networks, by commas or spaces', () => {
  const proxies = (TRUSTED_PROXIES: string) => parseConfig({ TRUSTED_PROXIES }).TRUSTED_PROXIES
  expect(proxies('')).toBeUndefined()
  expect(proxies('10.0.0.0/8,35.191.0.0/16 , 2001:db8::/32')).toEqual(['10.0.0.0/8', '35.191.0.0/16', '2001:db8::/32'])
})

test('CORS_ORIGINS is a list of origins, by spaces or commas', () => {
  const CORS_ORIGINS = 'https://app.example,http://localhost:5173  http://[::1]:8080, https://xn--mnchen-3ya.example'
  expect(parseConfig({ CORS_ORIGINS }).CORS_ORIGINS).toEqual([
    'https://app.example',
    'http://localhost:5173',
    'http://[::1]:8080',
    'https://xn--mnchen-3ya.example',
  ])
  expect(parseConfig({}).CORS_ORIGINS).toBeUndefined()
})

describe('traces', () => {
  const OTEL_EXPORTER_OTLP_ENDPOINT = 'http://collector:4318'

  test.each([
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' }],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc' }],
  ])('another protocol is refused in a sentence: %j', (env) => {
    expect(() => parseConfig({ ...env, OTEL_EXPORTER_OTLP_ENDPOINT })).toThrow(
      /^OTEL_EXPORTER_OTLP_PROTOCOL must .+\.$/,
    )
    expect(parseConfig(env).tracing).toBeUndefined()
    expect(parseConfig({ ...env, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SDK_DISABLED: 'TRUE' }).tracing).toBeUndefined()
  })

  test.each([
    [{}, { ratio: 1, parentBased: true }],
    [{ OTEL_TRACES_SAMPLER: 'always_off' }, { ratio: 0, parentBased: false }],
    [
      { OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.25' },
      { ratio: 0.25, parentBased: false },
    ],
    [
      { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '.5' },
      { ratio: 0.5, parentBased: true },
    ],
  ])('are chosen as %j says', (env, tracing) => {
    expect(parseConfig({ ...env, OTEL_EXPORTER_OTLP_ENDPOINT }).tracing).toEqual(tracing)
  })
})

describe('authentication', () => {
  const [AUTH_ISSUER, AUTH_AUDIENCE] = ['https://issuer.example', 'users-api']

  test('is off where nothing is said', () => {
    expect(parseConfig({}).auth).toBeUndefined()
  })

  test('is on with an issuer and an audience', () => {
    expect(parseConfig({ AUTH_ISSUER, AUTH_AUDIENCE }).auth).toEqual({
      readScope: 'users:read',
      writeScope: 'users:write',
      tokens: { issuer: AUTH_ISSUER, audience: AUTH_AUDIENCE, types: ['at+jwt'] },
    })
  })

  test('is on with the audience of Identity-Aware Proxy, whose people may read unless a setting says more', () => {
    const AUTH_IAP_AUDIENCE = '/projects/1/global/backendServices/2'
    const iap = {
      issuer: 'https://cloud.google.com/iap',
      audience: AUTH_IAP_AUDIENCE,
      jwksUrl: 'https://www.gstatic.com/iap/verify/public_key-jwk',
      types: ['jwt'],
      scopes: ['look'],
    }
    const env = { AUTH_IAP_AUDIENCE, AUTH_READ_SCOPE: 'look' }
    expect(parseConfig(env).auth).toEqual({ readScope: 'look', writeScope: 'users:write', iap })
    const scopes = (AUTH_IAP_SCOPES: string) => parseConfig({ ...env, AUTH_IAP_SCOPES }).auth?.iap?.scopes
    expect(scopes('look users:write')).toEqual(['look', 'users:write'])
    expect(() => scopes('look "users:write"')).toThrow(/^AUTH_IAP_SCOPES has .+\.$/)
  })

  test.each(['http://localhost:4000', 'http://127.0.0.1:4000', 'http://[::1]:4000/realm'])(
    'an issuer on this machine needs no https: %s',
    (issuer) => {
      expect(parseConfig({ AUTH_ISSUER: issuer, AUTH_AUDIENCE }).auth?.tokens?.issuer).toBe(issuer)
    },
  )

  test.each(['http://localhost.example', 'http://127.0.0.1.example', 'http://10.0.0.1', 'ftp://localhost'])(
    'any other does: %s',
    (issuer) => {
      expect(() => parseConfig({ AUTH_ISSUER: issuer, AUTH_AUDIENCE })).toThrow(/^AUTH_ISSUER must be .+\.$/)
    },
  )
})

test('every setting is in .env.example and in a table of the documents, with its default', () => {
  const example = file('../.env.example')
  const pages = ['observability', 'limits', 'authentication', 'failures', 'databases'].map((page) => `docs/${page}.md`)
  const tables = ['README.md', ...pages].map((page) => file(`../${page}`)).join('')
  for (const { name, meaning, fallback } of settings) {
    expect(example).toContain(`# ${meaning}\n# ${name}=${fallback}`)
    expect(tables).toContain(`| \`${name}\` | ${fallback && `\`${fallback}\``} | ${meaning} |`)
  }
  const names = new Set(settings.map(({ name }) => name))
  for (const [, name] of example.matchAll(/^# ([A-Z_]+)=/gm)) expect(names).toContain(name)
})
