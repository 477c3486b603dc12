import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Issuer, startIssuer } from '../../dev/issuer.ts'
import { type Api, problemIn, startApi } from '../../test/api.ts'
import { assetPath } from './assets.ts'

const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
const IAP_AUDIENCE = '/projects/1/global/backendServices/2'
const IAP = {
  iss: 'https://cloud.google.com/iap',
  aud: IAP_AUDIENCE,
  sub: 'accounts.google.com:1',
  client_id: undefined,
}

let issuer: Issuer
let api: Api
beforeAll(async () => {
  issuer = await startIssuer()
  api = await startApi({ ...issuer.env, AUTH_IAP_AUDIENCE: IAP_AUDIENCE, AUTH_IAP_JWKS_URL: issuer.jwksUrl })
})
afterAll(async () => {
  await api.close()
  await issuer.close()
})

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const withScope = async (scope: string) => bearer(await issuer.sign({ scope }))
/** What Identity-Aware Proxy adds to a request of this person. */
const throughProxy = async (claims: object = {}) => ({
  'x-goog-iap-jwt-assertion': await issuer.sign({ ...IAP, ...claims }, { typ: 'JWT' }),
})
const statusOf = async (method: string, path: string, headers: Record<string, string>, body?: object) =>
  (await api.request(method, path, body, headers)).status

let count = 0
const newUser = () => ({ username: `Auth ${++count}`, email: `auth${count}@example.com` })

describe('scopes', () => {
  test('users:read reads and nothing more, users:write writes and nothing more', async () => {
    const [read, write] = [await withScope('users:read'), await withScope('users:write')]
    expect(await statusOf('POST', '/users', write, newUser())).toBe(201)
    expect(await statusOf('GET', '/users', read)).toBe(200)
    expect(await statusOf('HEAD', '/users', read)).toBe(200)
    expect(await statusOf('OPTIONS', '/users', read)).toBe(204)
    expect(await statusOf('GET', '/users', write)).toBe(403)
    for (const method of ['PUT', 'PATCH', 'DELETE']) {
      const body = method === 'DELETE' ? undefined : newUser()
      expect(await statusOf(method, '/users/999999', read, body)).toBe(403)
      expect(await statusOf(method, '/users/999999', write, body)).toBe(404)
    }
    expect(await statusOf('POST', '/users', read, newUser())).toBe(403)
  })

  test.each([
    [{ scope: 'users:read' }, 200],
    [{ scope: 'openid users:read email' }, 200],
    [{ scp: 'users:read' }, 200],
    [{ scp: ['openid', 'users:read'] }, 200],
    [{ scope: 'openid', scp: ['users:read'] }, 200],
    [{}, 403],
    [{ scope: '' }, 403],
    [{ scope: 'users:reader' }, 403],
    [{ scope: 'USERS:READ' }, 403],
    [{ scope: 'users:read,users:write' }, 403],
    [{ scope: { 'users:read': true } }, 403],
    [{ scp: [['users:read'], 7, null] }, 403],
    [{ roles: ['users:read'] }, 403],
  ])('%j gets %i', async (claims, status) => {
    expect(await statusOf('GET', '/users', bearer(await issuer.sign(claims)))).toBe(status)
  })

  test('have the names that settings give them', async () => {
    const named = await startApi({
      ...issuer.env,
      AUTH_READ_SCOPE: 'look',
      AUTH_WRITE_SCOPE: 'https://a.example/change',
    })
    onTestFinished(() => named.close())
    expect((await named.request('GET', '/users', undefined, await withScope('look'))).status).toBe(200)
    const refused = await named.request('POST', '/users', newUser(), await withScope('look'))
    expect(refused.headers.get('www-authenticate')).toContain('scope="https://a.example/change"')
    const { paths } = (await named.request('GET', '/openapi.json')).body
    expect(paths['/users'].post.security).toEqual([{ accessToken: ['https://a.example/change'] }])
  })
})

describe('a refusal says which token would do', () => {
  const SCOPE = 'scope="users:read"'
  const invalid = (why: string) =>
    `Bearer realm="users-api", error="invalid_token", error_description="${why}", ${SCOPE}`
  const now = Math.floor(Date.now() / 1000)

  test.each<[string, () => Promise<Record<string, string>> | Record<string, string>, string]>([
    ['no token', () => ({}), `Bearer realm="users-api", ${SCOPE}`],
    ['another scheme', () => ({ authorization: 'Basic dTpw' }), `Bearer realm="users-api", ${SCOPE}`],
    ['an empty token', () => ({ authorization: 'Bearer' }), invalid('The token is not a JWT.')],
    ['an opaque token', () => bearer('1a2b3c'), invalid('The token is not a JWT.')],
    ['a token with padding', async () => bearer(`${await issuer.sign()}=`), invalid('The token is not a JWT.')],
    ['two tokens', async () => bearer(`${await issuer.sign()}, Bearer x.y.z`), invalid('The token is not a JWT.')],
    [
      'a foreign signature',
      async () => bearer((await issuer.sign()).replace(/[^.]+$/, 'AAAA')),
      invalid('The token is not valid.'),
    ],
    ['an old token', async () => bearer(await issuer.sign({ exp: now - 31 })), invalid('The token has expired.')],
    [
      'a token without an end',
      async () => bearer(await issuer.sign({ exp: undefined })),
      invalid("The token's exp is not what it must be."),
    ],
    [
      'a token of tomorrow',
      async () => bearer(await issuer.sign({ nbf: now + 86_400 })),
      invalid("The token's nbf is not what it must be."),
    ],
    [
      'another audience',
      async () => bearer(await issuer.sign({ aud: 'other' })),
      invalid("The token's aud is not what it must be."),
    ],
    [
      'another issuer',
      async () => bearer(await issuer.sign({ iss: 'https://other.example' })),
      invalid("The token's iss is not what it must be."),
    ],
    ['nobody', async () => bearer(await issuer.sign({ sub: '' })), invalid("The token's sub is not what it must be.")],
    [
      'an endless name',
      async () => bearer(await issuer.sign({ sub: 'x'.repeat(256) })),
      invalid("The token's sub is not what it must be."),
    ],
    [
      'a name that no table takes',
      async () => bearer(await issuer.sign({ sub: 'a\u0000' })),
      invalid("The token's sub is not what it must be."),
    ],
    [
      'a list of types',
      async () => bearer(await issuer.sign({}, { typ: ['at+jwt'] })),
      invalid('The token is not valid.'),
    ],
    [
      'an ID token',
      async () => bearer(await issuer.sign({}, { typ: 'JWT' })),
      invalid("The token's typ is not what it must be."),
    ],
    [
      'an assertion as a token',
      async () => bearer((await throughProxy())['x-goog-iap-jwt-assertion']),
      invalid("The token's iss is not what it must be."),
    ],
    [
      'a token as an assertion',
      async () => ({ 'x-goog-iap-jwt-assertion': await issuer.sign() }),
      invalid("The token's iss is not what it must be."),
    ],
  ])('401 for %s', async (_, headersOf, expected) => {
    const { status, headers, body } = await api.request('GET', '/users/1', undefined, await headersOf())
    expect([status, headers.get('www-authenticate')]).toEqual([401, expected])
    expect([headers.get('content-type'), headers.get('cache-control')]).toEqual([
      'application/problem+json',
      'no-store',
    ])
    const why = /error_description="([^"]+)"/.exec(expected)?.[1]
    expect(body).toMatchObject({ status: 401, title: 'Unauthorized', type: 'about:blank' })
    expect(body.detail).toBe(why ?? 'The request needs an access token: Authorization: Bearer.')
  })

  test('403 for a token without the scope', async () => {
    const { status, headers, body } = await api.request('DELETE', '/users/1', undefined, await withScope('users:read'))
    const why = 'This needs the scope users:write.'
    const rest = `error="insufficient_scope", error_description="${why}", scope="users:write"`
    expect([status, headers.get('www-authenticate')]).toEqual([403, `Bearer realm="users-api", ${rest}`])
    expect(body).toMatchObject({ status: 403, title: 'Forbidden', detail: why })
  })

  test('a token that is a little too old or too new is taken: clocks differ', async () => {
    const scope = 'users:read'
    for (const claims of [{ exp: now - 5 }, { nbf: now + 15 }]) {
      expect(await statusOf('GET', '/users', bearer(await issuer.sign({ ...claims, scope })))).toBe(200)
    }
  })

  test('before anything else is read or told', async () => {
    const answer = await api.raw(
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n',
    )
    expect(answer).toMatch(/^HTTP\/1\.1 401 /)
    expect(problemIn(answer).status).toBe(401)
    for (const [method, path] of [
      ['GET', '/nowhere'],
      ['GET', '/users/nonsense'],
      ['PROPFIND', '/users'],
      ['DELETE', '/livez/x'],
    ]) {
      expect(await statusOf(method ?? '', path ?? '', {}), path).toBe(401)
    }
  })
})

describe('types of tokens', () => {
  test.each(['at+jwt', 'AT+JWT', 'application/at+jwt', 'Application/AT+JWT'])('%s is taken', async (typ) => {
    expect(await statusOf('GET', '/users', bearer(await issuer.sign({ scope: 'users:read' }, { typ })))).toBe(200)
  })

  test('JWT is taken where a setting says so, and no other', async () => {
    const lenient = await startApi({ ...issuer.env, AUTH_TOKEN_TYPE: 'JWT' })
    onTestFinished(() => lenient.close())
    const statuses: Record<string, number> = {}
    for (const typ of ['JWT', 'jwt', 'at+jwt', 'logout+jwt', undefined]) {
      const headers = bearer(await issuer.sign({ scope: 'users:read' }, { typ }))
      statuses[String(typ)] = (await lenient.request('GET', '/users', undefined, headers)).status
    }
    expect(statuses).toEqual({ JWT: 200, jwt: 200, 'at+jwt': 200, 'logout+jwt': 401, undefined: 401 })
  })
})

describe('strangers', () => {
  test.each(['/livez', '/readyz', '/openapi.json', '/docs', assetPath('page.css'), assetPath('docs.js')])(
    'may open %s',
    async (path) => {
      expect((await fetch(api.url + path)).status).toBe(200)
    },
  )

  test.each([
    '/',
    '/users',
    '/users/1',
    '/users/new',
    '/docs/',
    '/docs/x',
    '/openapi.json/',
    '/assets',
    '/assets/x',
    '/livez/',
    '//docs',
    '/assets/x/y/z',
  ])('may not open %s', async (path) => {
    expect((await fetch(api.url + path, { redirect: 'manual' })).status).toBe(401)
  })

  test.each(['/assets/../users', '/docs/../users', '/assets/x/..%2f..%2fusers', '/USERS', '/assets/users/1'])(
    'get no users by way of %s',
    async (path) => {
      const answer = await api.raw(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
      expect(answer).toMatch(/^HTTP\/1\.1 40[14] /)
    },
  )

  test('are many where nothing is set, and the page says so', async () => {
    const open = await startApi()
    onTestFinished(() => open.close())
    expect((await open.request('GET', '/users', undefined, { authorization: 'Bearer x' })).status).toBe(200)
    const page = await (await fetch(`${open.url}/users`, { headers: { accept: BROWSER } })).text()
    expect(page).toContain('Authentication is off')
    expect(page).not.toContain('Logged in as')
  })
})

describe('the page', () => {
  const open = async (path: string, headers: Record<string, string>) => {
    const answer = await fetch(api.url + path, { headers: { accept: BROWSER, ...headers } })
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  }

  test('shows whom the proxy has logged in, on every page', async () => {
    const alice = await throughProxy({ email: 'alice@example.com' })
    for (const path of ['/users', '/users/new', '/users/999999']) {
      const { text } = await open(path, alice)
      expect(text, path).toContain('Logged in as</span> <bdi>alice@example.com</bdi>')
    }
    expect((await open('/users', alice)).text).not.toContain('Authentication is off')
    expect((await open('/users', await throughProxy())).text).toContain('<bdi>accounts.google.com:1</bdi>')
    const script = await throughProxy({ email: '<script>x</script>' })
    expect((await open('/users', script)).text).toContain('<bdi>&lt;script&gt;x&lt;/script&gt;</bdi>')
  })

  test('lets people behind the proxy only read, unless a setting allows more', async () => {
    const send = async ({ url }: Api) =>
      fetch(`${url}/users/new`, {
        method: 'POST',
        headers: { accept: BROWSER, origin: url, ...(await throughProxy()) },
        body: new URLSearchParams(newUser()),
        redirect: 'manual',
      })
    const refused = await send(api)
    expect([refused.status, refused.headers.get('content-type')]).toEqual([403, 'text/html; charset=utf-8'])
    expect(await refused.text()).toContain('This needs the scope users:write.')
    const writing = await startApi({
      AUTH_IAP_AUDIENCE: IAP_AUDIENCE,
      AUTH_IAP_JWKS_URL: issuer.jwksUrl,
      AUTH_IAP_SCOPES: 'users:read users:write',
    })
    onTestFinished(() => writing.close())
    expect((await send(writing)).status).toBe(303)
    // No issuer is set, so its tokens say nothing.
    const { status } = await writing.request('GET', '/users', undefined, await withScope('users:read'))
    expect(status).toBe(401)
  })

  test('is 401 for a browser that came without a proxy, and says why', async () => {
    const { status, headers, text } = await open('/users', {})
    expect([status, headers.get('content-type')]).toEqual([401, 'text/html; charset=utf-8'])
    expect(headers.get('www-authenticate')).toBe('Bearer realm="users-api", scope="users:read"')
    expect(text).toContain(
      'A browser sends no access token: this page needs a proxy in front of it that logs people in.',
    )
  })

  test('a token of its own goes before that of the proxy', async () => {
    const both = { ...(await throughProxy()), ...(await withScope('users:write')) }
    expect(await statusOf('POST', '/users', both, newUser())).toBe(201)
    expect(await statusOf('GET', '/users', { ...(await throughProxy()), authorization: 'Basic dTpw' })).toBe(200)
  })
})
