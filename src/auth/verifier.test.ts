import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Issuer, startIssuer } from '../../dev/issuer.ts'
import { memoryInUse } from '../../test/memory.ts'
import { parseConfig } from '../config.ts'
import { TokenRefused } from '../http/auth.ts'
import { Problem } from '../http/problem.ts'
import { createAuth } from './verifier.ts'

const COOL_DOWN_MS = 10_000
const RELOAD_INTERVAL_MS = 600_000
const DISCOVERY = '/.well-known/openid-configuration'

let issuer: Issuer
beforeEach(async () => {
  issuer = await startIssuer()
})
afterEach(async () => {
  vi.restoreAllMocks()
  vi.useRealTimers()
  await issuer.close()
})

/** A verifier of the issuer's tokens, with what it told of the keys. */
function verifier(env: Record<string, string> = {}) {
  const told: (string | undefined)[] = []
  const { auth } = parseConfig({ ...issuer.env, ...env })
  const { tokens } = createAuth(auth as NonNullable<typeof auth>, (_, reason) => told.push(reason))
  return { told, verify: async (token: string) => tokens?.(token) }
}

const now = performance.now.bind(performance)
let passed = 0
/** Moves the clock that cool-downs go by. */
function pass(ms: number) {
  passed += ms
  vi.spyOn(performance, 'now').mockImplementation(() => now() + passed)
}

const keysAsked = () => issuer.asked.filter((path) => path === '/jwks').length
const refused = { name: 'Error', message: 'The token is not valid.' }
const unavailable = { status: 503, options: { headers: { 'Retry-After': '10' } } }

describe('keys', () => {
  test('are where the issuer says, by OpenID Connect Discovery', async () => {
    const { verify } = verifier()
    expect(await verify(await issuer.sign({ scope: 'users:read', sub: 'alice' }))).toMatchObject({ subject: 'alice' })
    expect(issuer.asked).toEqual([DISCOVERY, '/jwks'])
  })

  test('or by RFC 8414', async () => {
    issuer.fail(({ url }, response) => {
      if (url !== DISCOVERY) return false
      response.writeHead(404).end()
      return true
    })
    const { verify } = verifier()
    expect(await verify(await issuer.sign())).toMatchObject({ subject: 'dev' })
    expect(issuer.asked).toEqual([DISCOVERY, '/.well-known/oauth-authorization-server', '/jwks'])
  })

  test('or where a setting says', async () => {
    const { verify } = verifier({ AUTH_JWKS_URL: issuer.jwksUrl })
    expect(await verify(await issuer.sign())).toMatchObject({ subject: 'dev' })
    expect(issuer.asked).toEqual(['/jwks'])
  })

  test.each(['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'])('of %s are used', async (algorithm) => {
    await issuer.rotate({ algorithm })
    expect(await verifier().verify(await issuer.sign())).toMatchObject({ subject: 'dev' })
  })

  test.each(['RS512', 'PS384', 'ES384', 'ES512'])('of %s are not', async (algorithm) => {
    await issuer.rotate({ algorithm, keep: true })
    await expect(verifier().verify(await issuer.sign())).rejects.toMatchObject(refused)
  })

  test.each(['RS256', 'ES256', 'EdDSA'])('that name no algorithm have the one of their type: %s', async (algorithm) => {
    await issuer.rotate({ algorithm })
    for (const key of issuer.keys) delete key.alg
    expect(await verifier().verify(await issuer.sign())).toMatchObject({ subject: 'dev' })
  })

  test('are never used with a second algorithm', async () => {
    await issuer.rotate({ algorithm: 'PS256' })
    for (const key of issuer.keys) delete key.alg
    await expect(verifier().verify(await issuer.sign())).rejects.toMatchObject(refused)
  })

  test('that are symmetric, or none at all, are left out', async () => {
    const odd = [{ kty: 'oct', k: 'c2VjcmV0', alg: 'HS256' }, { kty: 'oct', k: 'c2VjcmV0' }, null, 'x', { alg: 7 }]
    issuer.keys.unshift(...(odd as typeof issuer.keys))
    expect(await verifier().verify(await issuer.sign())).toMatchObject({ subject: 'dev' })
  })

  test('that are new are found, and old ones are forgotten with what they have signed', async () => {
    const { verify } = verifier()
    const old = await issuer.sign()
    await verify(old)
    await issuer.rotate()
    const token = await issuer.sign()
    expect(await verify(old)).toMatchObject({ subject: 'dev' })
    pass(COOL_DOWN_MS + 1)
    expect(await verify(token)).toMatchObject({ subject: 'dev' })
    await expect(verify(old)).rejects.toMatchObject(refused)
  })

  test('are loaded again now and then, without a request', async () => {
    vi.useFakeTimers({ toFake: ['setInterval'] })
    const { verify } = verifier()
    const old = await issuer.sign()
    await verify(old)
    await issuer.rotate()
    vi.advanceTimersByTime(RELOAD_INTERVAL_MS)
    await expect.poll(() => verify(old).catch(({ message }) => message)).toBe(refused.message)
    expect(keysAsked()).toBe(2)
  })
})

describe('loads', () => {
  test('are one for any number of tokens that wait for it', async () => {
    const { promise: asked, resolve: ask } = Promise.withResolvers<ServerResponse>()
    issuer.fail(({ url }, response) => {
      if (url === '/jwks') ask(response)
      return url === '/jwks'
    })
    const tokens = await Promise.all(Array.from({ length: 200 }, () => issuer.sign()))
    const { verify } = verifier()
    const verified = tokens.map(verify)
    const response = await asked
    response.end(JSON.stringify({ keys: issuer.keys }))
    await Promise.all(verified)
    expect(keysAsked()).toBe(1)
  })

  test('are waited for by 1,000 requests at most: others are refused at once', async () => {
    const { promise: asked, resolve: ask } = Promise.withResolvers<ServerResponse>()
    issuer.fail(({ url }, response) => {
      if (url === '/jwks') ask(response)
      return url === '/jwks'
    })
    const token = await issuer.sign()
    const { verify } = verifier()
    const waiting = Promise.all(Array.from({ length: 1000 }, () => verify(token)))
    await expect(verify(token)).rejects.toMatchObject({ status: 503 })
    const response = await asked
    response.end(JSON.stringify({ keys: issuer.keys }))
    await waiting
    expect(await verify(token)).toMatchObject({ subject: 'dev' })
  })

  test('are not caused by unknown keys again and again', async () => {
    const { verify } = verifier()
    await verify(await issuer.sign())
    const strangers = await Promise.all(Array.from({ length: 50 }, (_, i) => issuer.sign({}, { kid: `unknown-${i}` })))
    for (const token of strangers) await expect(verify(token)).rejects.toThrow(TokenRefused)
    expect(keysAsked()).toBe(1)
    pass(COOL_DOWN_MS + 1)
    await Promise.allSettled(strangers.map(verify))
    expect(keysAsked()).toBe(2)
  })

  test('are not caused by tokens that could not be taken anyway', async () => {
    const { verify } = verifier()
    await verify(await issuer.sign())
    pass(COOL_DOWN_MS + 1)
    const header = Buffer.from(JSON.stringify({ alg: 'HS256', kid: 'unknown', typ: 'at+jwt' })).toString('base64url')
    await expect(verify(`${header}.e30.AAAA`)).rejects.toThrow(TokenRefused)
    expect(keysAsked()).toBe(1)
  })
})

describe('an issuer that fails', () => {
  const faults: Record<string, (response: ServerResponse) => unknown> = {
    'is away': (response) => response.destroy(),
    'is silent': () => {},
    dawdles: (response) => response.write('{"keys":['),
    'is broken': (response) => response.writeHead(500).end('{"keys":[]}'),
    redirects: (response) => response.writeHead(302, { location: issuer.jwksUrl }).end(),
    'says too much': (response) => response.end(JSON.stringify({ keys: issuer.keys, pad: 'x'.repeat(300_000) })),
    'says no JSON': (response) => response.end('<html>'),
    'says something else': (response) => response.end('[]'),
    'has no keys': (response) => response.end('{"keys":[]}'),
    'has only secrets': (response) => response.end('{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}'),
  }

  test.each(Object.keys(faults))(
    '%s: known keys go on, for others there is a 503, and the log is told once',
    async (name) => {
      let isFaulty = false
      issuer.fail(({ url }, response) => {
        if (!isFaulty || url !== '/jwks') return false
        faults[name]?.(response)
        return true
      })
      const { verify, told } = verifier()
      const [first, known, other] = await Promise.all([
        issuer.sign(),
        issuer.sign(),
        issuer.sign({}, { kid: 'unknown' }),
      ])
      await verify(first)
      isFaulty = true
      pass(COOL_DOWN_MS + 1)
      const answers = Promise.allSettled([verify(other), verify(other)])
      expect(await verify(known)).toMatchObject({ subject: 'dev' })
      for (const answer of await answers) expect(answer).toMatchObject({ status: 'rejected', reason: unavailable })
      expect(await verify(first)).toMatchObject({ subject: 'dev' })
      await expect(verify(other)).rejects.toThrow(Problem)
      expect(keysAsked()).toBe(2)
      expect(told).toEqual([expect.stringMatching(/\w/)])

      isFaulty = false
      pass(2 * COOL_DOWN_MS)
      await expect(verify(other)).rejects.toThrow(TokenRefused)
      expect(told).toEqual([expect.any(String), undefined])
    },
  )

  test('from the start gives 503, until it is there', async () => {
    issuer.fail((_, response) => {
      response.destroy()
      return true
    })
    const { verify } = verifier()
    const token = await issuer.sign()
    await expect(verify(token)).rejects.toMatchObject(unavailable)
    issuer.fail(undefined)
    await expect(verify(token)).rejects.toMatchObject(unavailable)
    pass(COOL_DOWN_MS + 1)
    expect(await verify(token)).toMatchObject({ subject: 'dev' })
  })

  test.each([
    ['another name', { issuer: 'https://other.example' }],
    ['keys that anyone on the way can change', { jwks_uri: 'http://keys.example/jwks' }],
    ['keys in a file', { jwks_uri: 'file:///etc/passwd' }],
    ['no keys', { jwks_uri: undefined }],
  ])('describes itself with %s: it is not believed', async (_, lie) => {
    issuer.fail(({ url }, response) => {
      if (!url?.startsWith('/.well-known/')) return false
      response.end(JSON.stringify({ issuer: issuer.url, jwks_uri: issuer.jwksUrl, ...lie }))
      return true
    })
    const { verify, told } = verifier()
    await expect(verify(await issuer.sign())).rejects.toMatchObject(unavailable)
    expect(keysAsked()).toBe(0)
    expect(told).toHaveLength(1)
  })
})

describe('what was verified', () => {
  /** Counts the signatures that are verified. */
  const countVerifications = () => vi.spyOn(crypto.subtle, 'verify')

  /** A verifier that has loaded the keys. */
  async function ready() {
    const { verify } = verifier()
    await verify(await issuer.sign())
    return verify
  }

  test('is not verified again', async () => {
    const verify = await ready()
    const token = await issuer.sign()
    const verifications = countVerifications()
    const first = await verify(token)
    for (let i = 0; i < 10; i++) expect(await verify(token)).toBe(first)
    expect(verifications).toHaveBeenCalledTimes(1)
  })

  test('ends with the token', async () => {
    const { verify } = verifier()
    const token = await issuer.sign()
    await verify(token)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2 * 3_600_000 })
    await expect(verify(token)).rejects.toMatchObject({ message: 'The token has expired.' })
  })

  test('does not vouch for a token that differs', async () => {
    const { verify } = verifier()
    const token = await issuer.sign()
    await verify(token)
    const [header, , signature] = token.split('.')
    const payload = Buffer.from(JSON.stringify({ sub: 'root' })).toString('base64url')
    await expect(verify(`${header}.${payload}.${signature}`)).rejects.toThrow(TokenRefused)
  })

  test('takes little memory, however much a token holds', async () => {
    const name = 'https://scopes.example/a-long-name/users.read'
    const { verify } = verifier({ AUTH_READ_SCOPE: name })
    const claims = { scope: Array(200).fill(name).join(' '), scp: Array(50).fill(name), email: 'a@example.com' }
    const verifyMany = async (count: number) => {
      for (let i = 0; i < count; i++) await verify(await issuer.sign({ ...claims, sub: `${i}` }))
    }
    await verifyMany(50)
    const before = memoryInUse().heapUsed
    await verifyMany(1000)
    expect(memoryInUse().heapUsed - before).toBeLessThan(2_000_000)
    expect(await verify(await issuer.sign(claims))).toMatchObject({ scopes: [name] })
  })

  test('is forgotten where there is too much, the oldest first', async () => {
    const verify = await ready()
    const [oldest, ...others] = await Promise.all(Array.from({ length: 10_001 }, () => issuer.sign()))
    await verify(oldest ?? '')
    for (const token of others) await verify(token)
    const verifications = countVerifications()
    await verify(others[0] ?? '')
    expect(verifications).toHaveBeenCalledTimes(0)
    await verify(oldest ?? '')
    expect(verifications).toHaveBeenCalledTimes(1)
  })
})
