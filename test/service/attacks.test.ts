import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign as signBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { JWK } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { AUDIENCE, type Issuer, startIssuer } from '../../dev/issuer.ts'
import { type Api, startApi } from '../api.ts'
import { memoryInUse } from '../memory.ts'

const IAP_AUDIENCE = '/projects/1/global/backendServices/2'
/** Part of what nobody may get. */
const SECRET = 'Guarded7'
const COOL_DOWN_MS = 10_000

type Json = Record<string, unknown>

/** Keys of this issuer, whose private halves the tests have. The service trusts them. */
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
const publish = ({ publicKey }: { publicKey: KeyObject }, rest: Json): JWK => ({
  ...publicKey.export({ format: 'jwk' }),
  ...rest,
})

let issuer: Issuer
/** An issuer that the service does not trust. */
let stranger: Issuer
let api: Api
let env: Record<string, string>
let userId: number
beforeAll(async () => {
  ;[issuer, stranger] = await Promise.all([startIssuer(), startIssuer()])
  issuer.keys.push(
    publish(rsa, { kid: 'rs', alg: 'RS256' }),
    publish(rsa, { kid: 'ps', alg: 'PS256' }),
    publish(rsa, { kid: 'plain' }),
    publish(rsa, { kid: 'encrypts', use: 'enc' }),
    publish(rsa, { kid: 'wraps', key_ops: ['wrapKey'] }),
    publish(weak, { kid: 'weak', alg: 'RS256' }),
    { kty: 'oct', kid: 'shared', alg: 'HS256', k: 'c2VjcmV0' },
  )
  env = { ...issuer.env, AUTH_IAP_AUDIENCE: IAP_AUDIENCE, AUTH_IAP_JWKS_URL: issuer.jwksUrl }
  api = await startApi(env)
  const user = { username: SECRET, email: `${SECRET}@example.com` }
  userId = (await api.request('POST', '/users', user, { authorization: `Bearer ${await good('users:write')}` })).body.id
})
afterAll(async () => {
  await api.close()
  await Promise.all([issuer.close(), stranger.close()])
})
afterEach(() => {
  vi.restoreAllMocks()
})

const good = (scope = 'users:read users:write') => issuer.sign({ scope })

const encode = (part: unknown) =>
  Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')
const now = Math.floor(Date.now() / 1000)
const claimsOf = (changes: Json = {}) => ({
  iss: issuer.url,
  aud: AUDIENCE,
  sub: 'mallory',
  exp: now + 3600,
  scope: 'users:read users:write',
  ...changes,
})
const HEADER = { alg: 'RS256', typ: 'at+jwt', kid: 'rs' }

/** A token that the issuer has signed with RS256, or what `make` makes of the header and the payload. */
function token(header: Json | string = {}, claims: unknown = {}, make = rs256) {
  const whole = typeof claims === 'object' && claims?.constructor === Object ? claimsOf(claims as Json) : claims
  const signed = `${encode(typeof header === 'string' ? header : { ...HEADER, ...header })}.${encode(whole)}`
  return `${signed}.${make(signed).toString('base64url')}`
}
const rs256 = (data: string, key = rsa.privateKey) => signBytes('sha256', Buffer.from(data), key)
const hs =
  (secret: string | Buffer, bits = 256) =>
  (data: string) =>
    createHmac(`sha${bits}`, secret).update(data).digest()
const nothing = () => Buffer.alloc(0)

const requestOf = (method: string, target: string, lines: string[], body = '') =>
  [`${method} ${target} HTTP/1.1`, 'Host: users.example', 'Connection: close', ...lines, '', body].join('\r\n')

/** Sends a request that nobody may send: it is refused, and the answer tells nothing. */
async function refused(request: string, statuses = [401]) {
  const answer = await api.raw(request)
  // Who still sends when the answer is there may only see that the connection is gone.
  if (answer === '' && statuses.includes(431)) return
  const status = Number(answer.split(' ')[1])
  expect(statuses, answer.slice(0, 300)).toContain(status)
  if (status === 401)
    expect(answer).toMatch(/^www-authenticate: Bearer realm="users-api", .*scope="users:(read|write)"/im)
  // No data, no stack, no token, and nothing of the machine.
  expect(answer).not.toMatch(new RegExp(`${SECRET}|\\bat .+:\\d+|node_modules|Error:|eyJ|jose|passwd|127\\.0\\.0\\.1`))
  expect(answer.length).toBeLessThan(5000)
}

/** A token that is not taken, neither to read nor to change anything. */
async function refusedToken(bad: string, statuses?: number[]) {
  for (const header of ['Authorization: Bearer', 'X-Goog-IAP-JWT-Assertion:']) {
    await refused(requestOf('GET', '/users', [`${header} ${bad}`]), statuses)
    await refused(requestOf('DELETE', `/users/${userId}`, [`${header} ${bad}`]), statuses)
  }
}

test('what the tokens of these tests are made of is taken', async () => {
  const { body } = await api.request('GET', `/users/${userId}`, undefined, { authorization: `Bearer ${token()}` })
  expect(body.username).toBe(SECRET)
  const status = async (bearer: string) =>
    (await api.request('GET', '/users', undefined, { authorization: `Bearer ${bearer}` })).status
  expect(await status(token({ kid: 'plain' }))).toBe(200)
  expect(await status(token({ kid: 'ps', alg: 'PS256' }, {}, ps256))).toBe(200)
})

const ps256 = (data: string) =>
  signBytes('sha256', Buffer.from(data), { key: rsa.privateKey, padding: 6, saltLength: 32 })

describe('a token is refused', () => {
  test.each(['none', 'None', 'NONE', 'nOnE', '', ' none', undefined, null, 0, ['RS256'], { RS256: 1 }])(
    'with the algorithm %j',
    async (alg) => {
      await refusedToken(token({ alg }, {}, nothing))
      await refusedToken(token({ alg }))
      await refusedToken(`${token({ alg }, {}, nothing)}AA`)
    },
  )

  test('with the public key as a secret that is shared', async () => {
    for (const key of issuer.keys.slice(0, 2)) {
      const { kid } = key
      const known = createPublicKey({ key, format: 'jwk' })
      const pem = known.export({ type: 'spki', format: 'pem' })
      const texts = [
        pem,
        String(pem).trim(),
        known.export({ type: 'spki', format: 'der' }),
        JSON.stringify(key),
        key.n ?? key.x ?? '',
        Buffer.from(key.n ?? key.x ?? '', 'base64url'),
      ]
      for (const text of texts) {
        await refusedToken(token({ alg: 'HS256', kid }, {}, hs(text)))
        await refusedToken(token({ alg: 'HS512', kid }, {}, hs(text, 512)))
      }
    }
  })

  test.each(['c2VjcmV0', 'secret', ''])('with a secret that the set of keys has, or none: %j', async (secret) => {
    for (const kid of ['shared', undefined, '/dev/null']) {
      await refusedToken(token({ alg: 'HS256', kid }, {}, hs(secret)))
    }
  })

  test.each([
    ['RS256 of a key for PS256', { kid: 'ps' }, rs256],
    ['PS256 of a key for RS256', { alg: 'PS256' }, ps256],
    ['PS256 of a key that names no algorithm', { kid: 'plain', alg: 'PS256' }, ps256],
    [
      'RS512 of a key that names no algorithm',
      { kid: 'plain', alg: 'RS512' },
      (d: string) => signBytes('sha512', Buffer.from(d), rsa.privateKey),
    ],
    ['one name and the other signature', { kid: 'plain' }, ps256],
    ['ES256 of a key of RSA', { kid: 'rs', alg: 'ES256' }, rs256],
    ['a key for encryption', { kid: 'encrypts' }, rs256],
    ['a key that may not verify', { kid: 'wraps' }, rs256],
    ['a key that is too short', { kid: 'weak' }, (d: string) => rs256(d, weak.privateKey)],
    ['no name of the key, where two could be meant', { kid: undefined }, rs256],
  ])('with %s', async (_, header, make) => {
    await refusedToken(token(header, {}, make))
  })

  test.each([
    '../../../../etc/passwd',
    '/dev/null',
    '../jwks',
    "' or 1=1 --",
    '$(id)',
    '\u0000rs',
    'rs\u0000',
    'RS',
    ' rs',
    '',
    '__proto__',
    'constructor',
    'x'.repeat(5000),
    ['rs'],
    { rs: 1 },
    null,
    7,
  ])('with the kid %j', async (kid) => {
    await refusedToken(token({ kid }))
    await refusedToken(token({ kid, alg: 'HS256' }, {}, hs('')))
  })

  test('with a key that it brings or points at, which nobody asks for', async () => {
    const [key] = stranger.keys as [JWK]
    const [{ kid }] = issuer.keys as [JWK]
    const claims = claimsOf()
    const headers = [
      { jwk: key },
      { jwk: key, kid: key.kid },
      { jku: stranger.jwksUrl },
      { jku: `${issuer.jwksUrl}#@${stranger.jwksUrl}` },
      { x5u: stranger.jwksUrl },
      { x5c: [encode('x')], x5t: 'x', 'x5t#S256': 'x' },
      { jku: 'file:///etc/passwd', jwk: { kty: 'oct', k: '' } },
      { kid: stranger.jwksUrl },
    ]
    for (const header of headers) await refusedToken(await stranger.sign(claims, { kid, ...header }))
    // Nor is its issuer asked: the one of the settings is.
    await refusedToken(await stranger.sign({ ...claims, iss: stranger.url }))
    expect(stranger.asked).toEqual([])
    expect(new Set(issuer.asked)).toEqual(new Set(['/.well-known/openid-configuration', '/jwks']))
  })

  test.each<[Json]>([
    [{ crit: ['exp'] }],
    [{ crit: ['exp'], exp: now + 3600 }],
    [{ crit: ['b64'], b64: false }],
    [{ crit: ['http://x.example/y'], 'http://x.example/y': true }],
    [{ crit: [] }],
    [{ crit: 'exp', exp: 1 }],
    [{ crit: null }],
    [{ crit: ['alg'] }],
    [{ b64: false, crit: ['b64', 'b64'] }],
  ])('with %j, which nobody here understands', async (header) => {
    await refusedToken(token(header))
  })

  test.each<[Json]>([
    [{ exp: now - 31 }],
    [{ exp: 0 }],
    [{ exp: -1e9 }],
    [{ exp: undefined }],
    [{ exp: null }],
    [{ exp: String(now + 3600) }],
    [{ exp: [now + 3600] }],
    [{ nbf: now + 3600 }],
    [{ nbf: String(now - 3600) }],
    [{ nbf: null }],
    [{ aud: undefined }],
    [{ aud: null }],
    [{ aud: 'users-api ' }],
    [{ aud: AUDIENCE.toUpperCase() }],
    [{ aud: 'users' }],
    [{ aud: 'users-api,other' }],
    [{ aud: [] }],
    [{ aud: [[AUDIENCE]] }],
    [{ aud: { [AUDIENCE]: true } }],
    [{ aud: IAP_AUDIENCE }],
    [{ iss: undefined }],
    [{ iss: null }],
    [{ iss: 'https://cloud.google.com/iap' }],
    [{ iss: 'https://issuer.example' }],
    [{ sub: undefined }],
    [{ sub: '' }],
    [{ sub: 7 }],
    [{ sub: ['mallory'] }],
    [{ sub: 'a\r\nSet-Cookie: b' }],
    [{ sub: 'x'.repeat(256) }],
  ])('with %j', async (claims) => {
    await refusedToken(token({}, claims))
  })

  test('with an issuer that is nearly the right one', async () => {
    const { url } = issuer
    const others = [
      `${url}/`,
      url.toUpperCase(),
      `${url}.evil.example`,
      `${url}@evil.example`,
      [url],
      url.slice(0, -1),
      ` ${url}`,
    ]
    for (const iss of others) await refusedToken(token({}, { iss }))
  })

  test.each([
    'JWT',
    'jwt',
    'id+jwt',
    'logout+jwt',
    'secevent+jwt',
    'dpop+jwt',
    'at+jwt;x',
    'x/at+jwt',
    'at+jwt ',
    '',
    null,
    undefined,
    7,
    ['at+jwt'],
  ])('with the type %j', async (typ) => {
    await refusedToken(token({ typ }))
  })

  test('of the proxy in place of one of the issuer, and the other way round', async () => {
    const ofProxy = token({ typ: 'JWT' }, { iss: 'https://cloud.google.com/iap', aud: IAP_AUDIENCE })
    const read = (line: string) => requestOf('GET', '/users', [line])
    expect(await api.raw(read(`X-Goog-IAP-JWT-Assertion: ${ofProxy}`))).toMatch(/^HTTP\/1\.1 200 /)
    expect(await api.raw(read(`Authorization: Bearer ${token()}`))).toMatch(/^HTTP\/1\.1 200 /)
    // Both are remembered now, each only for the way that it came.
    await refused(read(`Authorization: Bearer ${ofProxy}`))
    await refused(read(`X-Goog-IAP-JWT-Assertion: ${token()}`))
    await refusedToken(token({ typ: 'JWT' }, { aud: [AUDIENCE, IAP_AUDIENCE] }))
    // One that is not valid is not replaced by the other that is.
    await refused(
      requestOf('GET', '/users', [`Authorization: Bearer ${ofProxy}`, `X-Goog-IAP-JWT-Assertion: ${ofProxy}`]),
    )
  })

  test('with members twice, if the last ones are not right', async () => {
    const twice = (whole: object, name: string, last: unknown) =>
      JSON.stringify(whole).replace(/}$/, `,"${name}":${JSON.stringify(last)}}`)
    for (const [name, last] of Object.entries({ exp: 1, nbf: 9e9, aud: 'x', iss: stranger.url, sub: '', typ: 'x' })) {
      if (name !== 'typ') await refusedToken(token({}, twice(claimsOf(), name, last)))
    }
    for (const [name, last] of Object.entries({ alg: 'none', typ: 'JWT', kid: 'ps', crit: ['x'] })) {
      await refusedToken(token(twice(HEADER, name, last)))
    }
    const unscoped = requestOf('GET', '/users', [`Authorization: Bearer ${token({}, twice(claimsOf(), 'scope', ''))}`])
    await refused(unscoped, [403])
  })

  test.each([
    ['a list', '[]'],
    ['a text', '"x"'],
    ['null', 'null'],
    ['nothing', ' '],
    ['no JSON', '{'],
    ['no UTF-8', Buffer.from([0x7b, 0xff, 0x7d]).toString('latin1')],
    ['a mark before it', '\ufeff{}'],
    ['another JSON after it', '{}{}'],
    ['a prototype', '{"__proto__":{"sub":"root","exp":9999999999}}'],
  ])('that holds %s', async (_, claims) => {
    await refusedToken(token({}, claims))
    await refusedToken(token(claims))
  })

  test('within a token, or encrypted', async () => {
    const inner = await good()
    await refusedToken(token({ cty: 'JWT' }, inner))
    await refusedToken(token({ cty: 'JWT', zip: 'DEF' }, `"${inner}"`))
    await refusedToken(`${encode({ alg: 'dir', enc: 'A128GCM' })}..${encode('x')}.${encode('x')}.${encode('x')}`)
    await refusedToken(`${encode({ alg: 'RSA-OAEP', enc: 'A128GCM', kid: 'rs' })}.AA.AA.AA.AA`)
    await refusedToken(
      JSON.stringify({ payload: inner.split('.')[1], protected: inner.split('.')[0], signature: inner.split('.')[2] }),
    )
  })

  test('that is deep, long or far too long', async () => {
    const deep = `${'['.repeat(4000)}${']'.repeat(4000)}`
    await refusedToken(token({}, deep))
    await refusedToken(token(deep))
    await refusedToken(token({ x: 'y'.repeat(8000) }, {}, nothing))
    await refusedToken('x'.repeat(15_000))
    await refusedToken('.'.repeat(15_000))
    await refusedToken(token({ kid: 'k'.repeat(1_000_000) }), [431])
    await refusedToken(token({}, { pad: 'x'.repeat(1_000_000) }), [431])
    await refusedToken('.'.repeat(1_000_000), [431])
  })

  test('with any other writing of itself', async () => {
    const [header = '', payload = '', signature = ''] = token().split('.')
    const bad = [
      `${header}.${payload}`,
      `${header}.${payload}.`,
      `.${payload}.${signature}`,
      `${header}..${signature}`,
      `${header}.${payload}.${signature}.`,
      `${header}.${payload}.${signature}=`,
      `${header}.${payload}.${signature}%3D`,
      `${header} .${payload}.${signature}`,
      `${header}.${payload}.${signature.slice(2)}`,
      `${header}.${payload}.AAAA${signature}`,
      `"${header}.${payload}.${signature}"`,
      `${header}.${payload}.${signature} ${header}.${payload}.${signature}`,
      `${header}.${payload}.${signature},`,
      `${header}.${payload}.${signature}\u00e9`,
    ]
    for (const text of bad) await refusedToken(text)
  })
})

describe('a good token counts nowhere but in one Authorization header', () => {
  test('not in the query, a form, a cookie or another header', async () => {
    const own = await good()
    for (const name of ['access_token', 'token', 'id_token', 'authorization', 'Authorization', 'jwt']) {
      await refused(requestOf('GET', `/users?${name}=${own}`, []))
      await refused(requestOf('GET', `/users?${name}=Bearer%20${own}`, []))
      await refused(requestOf('GET', '/users', [`Cookie: ${name}=${own}`]))
    }
    for (const name of [
      'Proxy-Authorization',
      'X-Authorization',
      'X-Forwarded-Authorization',
      'X-Access-Token',
      'DPoP',
    ]) {
      await refused(requestOf('GET', '/users', [`${name}: Bearer ${own}`]))
    }
    const form = `access_token=${own}`
    const type = 'Content-Type: application/x-www-form-urlencoded'
    await refused(requestOf('POST', '/users/new', [type, `Content-Length: ${form.length}`], form))
  })

  test('not twice, and not beside another one', async () => {
    const [own, other] = [await good(), await stranger.sign(claimsOf())]
    for (const [first, second] of [
      [own, own],
      [own, other],
      [other, own],
    ]) {
      await refused(requestOf('GET', '/users', [`Authorization: Bearer ${first}`, `authorization: Bearer ${second}`]))
      await refused(requestOf('GET', '/users', [`Authorization: Bearer ${first}, Bearer ${second}`]))
      await refused(requestOf('GET', '/users', ['Authorization: Basic dTpw', `Authorization: Bearer ${second}`]))
    }
  })

  test('not with another scheme', async () => {
    const own = await good()
    for (const scheme of [
      'Basic',
      'DPoP',
      'MAC',
      'Token',
      'JWT',
      'Bearer:',
      'Bearer,',
      'Bearer=',
      '"Bearer"',
      'xBearer',
    ]) {
      await refused(requestOf('GET', '/users', [`Authorization: ${scheme} ${own}`]))
    }
    await refused(requestOf('GET', '/users', [`Authorization: ${own}`]))
    await refused(requestOf('GET', '/users', [`Authorization: Bearer${own}`]))
    await refused(requestOf('GET', '/users', [`Authorization : Bearer ${own}`]), [400])
    await refused(requestOf('GET', '/users', ['Authorization: Bearer', ` ${own}`]), [400, 401])
  })
})

test.each([
  'users:read\u00a0',
  '\tusers:read',
  'users:read\n',
  'users:read\u200b',
  'users\uff1aread',
  'USERS:READ',
  'users:rea\u0501',
  'users:*',
  'users',
  '*',
  'users:read:all',
  'xusers:read',
  'users:read,users:write',
  'users:read\u2003users:write',
  '["users:read"]',
])('the scope %j is not the one that it looks like', async (scope) => {
  for (const claims of [{ scope }, { scope: '', scp: [scope] }]) {
    const line = `Authorization: Bearer ${token({}, claims)}`
    await refused(requestOf('GET', '/users', [line]), [403])
    await refused(requestOf('DELETE', `/users/${userId}`, [line]), [403])
  }
})

describe('no way leads past', () => {
  test.each([
    '//users',
    '/./users',
    '/x/../users',
    '/docs/../users',
    '/docs/..;/users',
    '/docs;/users',
    '/docs/%2e%2e/users',
    '/assets/x/../../users',
    '/livez/../users',
    '/openapi.json/../users/1',
    '/openapi.json%00/users',
    '/docs%0a',
    '/users/docs',
    '/users/openapi.json',
    '/users/1/docs',
    '/users/livez',
    '/users/assets/x/y',
    '/%75sers',
    '/users%2f1',
    '/users%20',
    '/users.',
    '/users/',
    '/users;x=1',
    '/USERS',
    '/Users/1',
    '/users/1.json',
    '/users?/docs',
    '/users#/docs',
    '/docs/%23/../../users',
    '/\\users',
    '/docs\\..\\users',
  ])('by the target %s', async (target) => {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'POST']) {
      await refused(requestOf(method, target, ['Content-Length: 0']), target.includes('\\') ? [400] : [401])
    }
  })

  test.each(['http://users.example/users', 'http://users.example/docs/../users', '*', 'users', '\\users', '?/users'])(
    'by the target %s, which is none',
    async (target) => {
      await refused(requestOf('GET', target, []), [400])
      await refused(requestOf('OPTIONS', target, []), [400])
    },
  )

  test.each(['/assets/x/..%2f..%2fusers', '/assets/..%2fusers/1', '/assets/users/1'])(
    'by the target %s: there is nothing',
    async (target) => {
      await refused(requestOf('GET', target, []), [404])
      await refused(requestOf('POST', target, ['Content-Length: 0']), [405])
    },
  )

  test.each([
    'X-Original-URL: /docs',
    'X-Rewrite-URL: /docs',
    'X-Forwarded-Path: /docs',
    'X-Forwarded-Prefix: /docs',
    'X-HTTP-Method-Override: GET',
    'X-HTTP-Method: HEAD',
    'X-Forwarded-For: 127.0.0.1',
    'X-Forwarded-Host: localhost',
    'Forwarded: for=127.0.0.1',
    'X-Real-IP: 127.0.0.1',
    'X-Goog-Authenticated-User-Email: accounts.google.com:root@example.com',
    'X-Forwarded-User: root',
    'X-Subject: root',
    'Host: users.example/docs?',
    'Upgrade: h2c',
    'Origin: null',
  ])('by the header %s', async (line) => {
    const statuses = line.startsWith('Host') ? [400] : [401]
    await refused(requestOf('GET', '/users', [line]), statuses)
    await refused(requestOf('DELETE', `/users/${userId}`, [line]), statuses)
    await refused(requestOf('POST', '/users', [line, 'Content-Length: 0']), statuses)
  })

  test.each(['a/docs?', 'a/docs#', 'docs@b', 'a\\docs', 'a b', 'a,b', '/docs', '?', '[::1', 'a:99999'])(
    'by the host %s',
    async (host) => {
      await refused(`GET /users HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`, [400, 401])
      await refused(`GET /users HTTP/1.0\r\nHost: ${host}\r\n\r\n`, [400, 401])
    },
  )

  test.each(['TRACE', 'PROPFIND', 'PURGE', 'SEARCH', 'QUERY', 'LINK'])('by the method %s', async (method) => {
    await refused(requestOf(method, '/users', []), [400, 401])
    await refused(
      requestOf(method, `/users/${userId}`, [`Authorization: Bearer ${await good('users:read')}`]),
      [400, 403],
    )
  })

  test('by a body that a refused request brings', async () => {
    const smuggled = `GET /users HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${await good()}\r\n\r\n`
    const head = ['Authorization: Bearer x.y.z', 'Content-Type: application/json']
    await refused(requestOf('POST', '/users', [...head, `Content-Length: ${smuggled.length}`], smuggled))
    const chunked = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`
    await refused(requestOf('POST', '/users', [...head, 'Transfer-Encoding: chunked'], chunked))
    // Nor is one asked for.
    const answer = await api.raw(requestOf('POST', '/users', [...head, 'Content-Length: 9', 'Expect: 100-continue']))
    expect(answer).toMatch(/^HTTP\/1\.1 401 /)
  })

  test('by what was sent before on the same connection', async () => {
    const [read, write] = [await good('users:read'), await good('users:write')]
    const requests = [read, 'x.y.z', '', read, write, '', read].map((own, i, all) =>
      [
        `GET /users/${userId} HTTP/1.1`,
        'Host: a',
        ...(own ? [`Authorization: Bearer ${own}`] : []),
        ...(i === all.length - 1 ? ['Connection: close'] : []),
        '\r\n',
      ].join('\r\n'),
    )
    const answer = await api.raw(requests.join(''))
    expect([...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status))).toEqual([
      200, 401, 401, 200, 403, 401, 200,
    ])
  })
})

test('nobody gets the answer to the request of another by its Idempotency-Key, or takes the key away', async () => {
  const create = (sub: string, username: string) =>
    api.request(
      'POST',
      '/users',
      { username, email: `${username}@example.com` },
      {
        authorization: `Bearer ${token({}, { sub })}`,
        'idempotency-key': 'key-1',
      },
    )
  const first = await create('alice', 'Idem1')
  expect([first.status, (await create('alice', 'Idem1')).body]).toEqual([201, first.body])
  expect((await create('alice', 'Idem2')).status).toBe(422)
  expect((await create('mallory', 'Idem1')).status).toBe(409)
  const second = await create('mallory', 'Idem2')
  expect([second.status, (await create('mallory', 'Idem2')).body]).toEqual([201, second.body])
  for (const { body } of [first, second]) {
    expect(
      (await api.request('DELETE', `/users/${body.id}`, undefined, { authorization: `Bearer ${token()}` })).status,
    ).toBe(204)
  }
})

test('nobody uses up the quota of another: not by the same name from another issuer, and not by bad tokens', async () => {
  const limited = await startApi({ ...env, RATE_LIMIT: '2/86400' })
  onTestFinished(() => limited.close())
  const name = 'accounts.google.com:1'
  const ofProxy = token({ typ: 'JWT' }, { iss: 'https://cloud.google.com/iap', aud: IAP_AUDIENCE, sub: name })
  const statuses = async (header: object) => {
    const all = []
    for (let i = 0; i < 3; i++) all.push((await limited.request('GET', '/users', undefined, { ...header })).status)
    return all
  }
  expect(await statuses({ authorization: `Bearer ${token({}, { sub: name })}` })).toEqual([200, 200, 429])
  // One of the address's two requests was for the description.
  expect(await statuses({ authorization: `Bearer ${token({}, { sub: name, exp: 1 })}` })).toEqual([401, 429, 429])
  expect(await statuses({ 'x-goog-iap-jwt-assertion': ofProxy })).toEqual([200, 200, 429])
})

test('keys that change under load cost no request, and what an old key has signed is worth nothing afterwards', async () => {
  const turning = await startIssuer()
  const service = await startApi({ ...turning.env, DEADLINE_MS: '50000' })
  onTestFinished(async () => {
    await service.close()
    await turning.close()
  })
  const real = performance.now.bind(performance)
  let passed = 0
  vi.spyOn(performance, 'now').mockImplementation(() => real() + passed)
  const statusOf = async (own: string) =>
    (await service.request('GET', '/users', undefined, { authorization: `Bearer ${own}` })).status
  const first = await turning.sign({ scope: 'users:read' })
  expect(await statusOf(first)).toBe(200)

  const statuses = new Set<number>()
  let running = true
  let answered = 0
  const load = Array.from({ length: 8 }, async () => {
    while (running) {
      statuses.add(await statusOf(await turning.sign({ scope: 'users:read' })))
      answered++
    }
  })
  for (let i = 0; i < 4; i++) {
    passed += COOL_DOWN_MS + 1
    await turning.rotate({ keep: true, algorithm: ['RS256', 'EdDSA', 'PS256', 'ES256'][i] ?? '' })
    const before = answered
    await expect.poll(() => answered).toBeGreaterThan(before + 20)
  }
  expect([...statuses]).toEqual([200])
  expect(await statusOf(first)).toBe(200)
  running = false
  await Promise.all(load)

  passed += COOL_DOWN_MS + 1
  await turning.rotate()
  expect(await statusOf(await turning.sign({ scope: 'users:read' }))).toBe(200)
  expect(await statusOf(first)).toBe(401)
  expect(turning.asked.filter((path) => path === '/jwks')).toHaveLength(6)
})

test('10,000 different bad tokens take no memory, load no keys and keep nobody out', async () => {
  const own = { authorization: `Bearer ${await good()}` }
  const [header, , signature] = (await good()).split('.')
  const pad = 'p'.repeat(1000)
  const kinds: ((i: number) => string)[] = [
    (i) => `${header}.${encode(claimsOf({ jti: i, pad }))}.${signature}`,
    (i) => token({ kid: `unknown-${i}` }, { jti: i, pad }, nothing).concat('AA'),
    (i) => token({ alg: 'none' }, { jti: i, pad }, nothing),
    (i) => token({ alg: 'HS256' }, { jti: i, pad }, hs('secret')),
    (i) => token({ kid: 'plain' }, { jti: i, pad }, nothing).concat(signature ?? ''),
    (i) => `${pad}${i}`,
    (i) => `${pad}.${i}.x`,
    (i) => token({ jku: `${stranger.url}/${i}` }, { jti: i, pad }, nothing).concat('AA'),
  ]
  async function flood(first: number, end: number) {
    const socket = connect(api.port, '127.0.0.1').setEncoding('latin1')
    let [text, count] = ['', 0]
    socket.on('data', (chunk) => {
      const parts = (text + chunk).split('HTTP/1.1 401 ')
      text = parts.at(-1)?.slice(-20) ?? ''
      count += parts.length - 1
    })
    for (let i = first; i < end; i++) {
      const bad = kinds[i % kinds.length]?.(i)
      const close = i === end - 1 ? 'Connection: close\r\n' : ''
      socket.write(`GET /users HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${bad}\r\n${close}\r\n`)
      // No more of a connection may wait.
      while (!close && i + 1 - first - count >= 16) await once(socket, 'data')
    }
    await once(socket, 'close')
    return count
  }
  await flood(0, 1000)
  const loads = issuer.asked.length
  const start = performance.now()
  const before = memoryInUse().heapUsed
  let running = true
  const flooded = Promise.all([flood(1000, 6000), flood(6000, 11_000)]).finally(() => {
    running = false
  })
  let answered = 0
  while (running) {
    const [users, live] = await Promise.all([
      api.request('GET', '/users', undefined, own),
      api.request('GET', '/livez'),
    ])
    expect([users.status, live.status]).toEqual([200, 200])
    if (running) answered++
    // What asks here takes memory as well.
    await sleep(100)
  }
  expect(await flooded).toEqual([5000, 5000])
  expect(answered).toBeGreaterThan(2)
  // The tokens have twice as many.
  expect(memoryInUse().heapUsed - before).toBeLessThan(8_000_000)
  expect(issuer.asked.length - loads).toBeLessThanOrEqual(2 + (2 * (performance.now() - start)) / COOL_DOWN_MS)
  expect(stranger.asked).toEqual([])
})

test('after all of it the user is there, unchanged', async () => {
  const { body } = await api.request('GET', '/users', undefined, { authorization: `Bearer ${await good()}` })
  expect(body.users).toMatchObject([{ id: userId, username: SECRET }])
})
