import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'

const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

const open = (path: string, headers: Record<string, string> = {}, { url } = api) =>
  fetch(url + path, { headers: { accept: BROWSER, ...headers }, redirect: 'manual' })

/** Sends a form as a browser does from a page of the service. */
const send = (path: string, fields: Record<string, string>, headers: Record<string, string> = {}, { url } = api) =>
  fetch(url + path, {
    method: 'POST',
    headers: { accept: BROWSER, origin: url, ...headers },
    body: new URLSearchParams(fields),
    redirect: 'manual',
  })

let count = 0
const newUser = () => ({ username: `Page ${++count}`, email: `page${count}@example.com` })
const create = async (body = newUser()) => (await api.request('POST', '/users', body)).body
const stored = async (id: number) => (await api.request('GET', `/users/${id}`)).body

/** The value of a field of a form. */
const valueIn = (html: string, name: string) => new RegExp(`name="${name}" value="([^"]*)"`).exec(html)?.[1]
/** The text of the element that says what is wrong with a field, which the field must name. */
function faultIn(html: string, field: string) {
  const input = new RegExp(`<input id="${field}"[^>]*>`).exec(html)?.[0] ?? ''
  expect(input).toContain('aria-invalid="true"')
  expect(input).toMatch(new RegExp(`aria-describedby="[^"]*${field}-fault`))
  return new RegExp(`id="${field}-fault">([^<]*)<`).exec(html)?.[1]
}

describe('who gets what', () => {
  test.each([
    [BROWSER, 'text/html; charset=utf-8'],
    ['TEXT/HTML', 'text/html; charset=utf-8'],
    ['text/html, application/json;q=0.9', 'text/html; charset=utf-8'],
    ['text/html;q=0.5, */*;q=0.1', 'text/html; charset=utf-8'],
    ['*/*', 'application/json'],
    ['application/json, text/html', 'application/json'],
    ['text/html;q=0', 'application/json'],
    ['text/html;q=0.8, application/json', 'application/json'],
    ['image/png', 'application/json'],
    ['application/x-ndjson, text/html;q=0.9', 'application/x-ndjson'],
    ['application/x-ndjson, text/html', 'application/x-ndjson'],
  ])('Accept: %s gets %s', async (accept, type) => {
    const { status, headers } = await open('/users', { accept })
    expect([status, headers.get('content-type'), headers.get('vary')]).toEqual([200, type, 'Accept'])
  })

  test('/ leads to the page', async () => {
    const { status, headers } = await open('/')
    expect([status, headers.get('location')]).toEqual([302, '/users'])
  })

  test('a browser gets errors as pages, a program gets problem details', async () => {
    for (const path of ['/users/999999', '/nowhere', '/users/999999/edit']) {
      const { status, headers } = await open(path)
      expect([status, headers.get('content-type')]).toEqual([404, 'text/html; charset=utf-8'])
    }
    const { status, headers } = await open('/nowhere', { accept: '*/*' })
    expect([status, headers.get('content-type')]).toEqual([404, 'application/problem+json'])
  })

  test('nothing but our own files may be loaded', async () => {
    const { headers } = await open('/users')
    const policy = headers.get('content-security-policy')
    expect(policy).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    )
    expect(await (await open('/users')).text()).not.toMatch(/<script|style=|<style|https?:/)
  })

  test('PAGE=off leaves the API and its reference', async () => {
    const plain = await startApi({ PAGE: 'off' })
    try {
      expect((await open('/users', {}, plain)).headers.get('content-type')).toBe('application/json')
      expect((await open('/', {}, plain)).headers.get('location')).toBe('/docs')
      expect((await open('/users/new', {}, plain)).status).toBe(400)
      expect((await send('/users/new', newUser(), {}, plain)).status).toBe(405)
    } finally {
      await plain.close()
    }
  })
})

describe('the list', () => {
  test('shows users by page, with a way on and a way back', async () => {
    const users = [await create(), await create(), await create()]
    const ids = [...(await (await open('/users?limit=1000')).text()).matchAll(/id="user-(\d+)"/g)].map(([, id]) => id)
    expect(ids).toEqual(
      (await api.request('GET', '/users?limit=1000')).body.users.map(({ id }: { id: number }) => `${id}`),
    )
    expect(await (await open('/users')).text()).not.toContain('Back to the first page')
    const first = await (await open('/users?limit=1')).text()
    const next = /rel="next" href="([^"]+)"/.exec(first)?.[1]?.replaceAll('&amp;', '&') ?? ''
    const second = await (await open(next)).text()
    expect([...second.matchAll(/id="user-(\d+)"/g)].map(([, id]) => id)).toEqual([ids[1]])
    expect(second).toContain('<a class="button" href="/users">Back to the first page</a>')
    expect(users).toHaveLength(3)
  })

  test('looks up by name and by email', async () => {
    const { username, email, id } = await create()
    for (const query of [`username=${username.toUpperCase()}`, `email=${email}`]) {
      const html = await (await open(`/users?${query}`)).text()
      expect([...html.matchAll(/id="user-(\d+)"/g)].map(([, found]) => found)).toEqual([`${id}`])
    }
    expect(await (await open('/users?username=Nobody')).text()).toContain('No user was found.')
  })

  test('searches by the beginning of the name, with a way on and a way back', async () => {
    for (const username of ['Zebra 2', 'zebra 1', 'ZEBRA 3']) await create({ ...newUser(), username })
    const first = await (await open('/users?usernamePrefix=ZEB&limit=2')).text()
    const names = (html: string) => [...html.matchAll(/<bdi>(zebra \d)<\/bdi>/gi)].map(([, name]) => name)
    expect(names(first)).toEqual(['zebra 1', 'Zebra 2'])
    expect(valueIn(first, 'usernamePrefix')).toBe('ZEB')
    expect(first).toContain('Users, by username')
    const next = /rel="next" href="([^"]+)"/.exec(first)?.[1]?.replaceAll('&amp;', '&') ?? ''
    const second = await (await open(next)).text()
    expect([names(second), valueIn(second, 'usernamePrefix')]).toEqual([['ZEBRA 3'], 'ZEB'])
    expect(second).toContain('Back to the first page')
    expect(second).not.toContain('rel="next"')
  })

  test('says what is wrong with a look-up or a cursor', async () => {
    const answers = await Promise.all([open(`/users?username=${'x'.repeat(700)}`), open('/users?cursor=nonsense')])
    expect(answers.map(({ status }) => status)).toEqual([400, 400])
    const [name, cursor] = await Promise.all(answers.map((answer) => answer.text()))
    expect(name).toContain('username must have at most 80 characters')
    expect(cursor).toContain('cursor is not a cursor')
  })

  test.each(['<script>alert(1)</script>', '"><img src=x>', "' onfocus='x", '\u202Etxet', '&amp;'])(
    'shows %j as text, apart from the text around it',
    async (username) => {
      const { id } = await create({ ...newUser(), username })
      const escaped = username
        .replaceAll('&', '&amp;')
        .replaceAll('<', '&lt;')
        .replaceAll('>', '&gt;')
        .replaceAll('"', '&quot;')
        .replaceAll("'", '&#39;')
      const list = await (await open(`/users?username=${encodeURIComponent(username)}`)).text()
      expect(list).toContain(`<bdi>${escaped}</bdi>`)
      expect(list).toContain(`value="${escaped}"`)
      expect(valueIn(await (await open(`/users/${id}/edit`)).text(), 'username')).toBe(escaped)
      expect(valueIn(await (await open(`/users/${id}/delete`)).text(), 'username')).toBe(escaped)
    },
  )
})

describe('adding', () => {
  test('adds a user and leads to it; the same form sent twice adds one', async () => {
    const user = newUser()
    const { status, headers } = await send('/users/new', user)
    const [path = '', target] = (headers.get('location') ?? '').split('#')
    expect([status, await (await open(path)).text()]).toEqual([303, expect.stringContaining(`id="${target}"`)])
    expect((await send('/users/new', user)).status).toBe(409)
  })

  test('a user beyond the first page is on the one that it leads to', async () => {
    await api.database?.sql.unsafe("select setval(pg_get_serial_sequence('users', 'id'), 1000)")
    for (let n = 0; n < 3; n++) {
      const { headers } = await send('/users/new', newUser())
      const [path = '', target] = (headers.get('location') ?? '').split('#')
      expect(path).toMatch(/^\/users\?cursor=/)
      expect(await (await open(path)).text()).toContain(`id="${target}"`)
    }
  })

  test('says what is wrong beside each field, and keeps what was typed', async () => {
    const answer = await send('/users/new', { username: ' x', email: 'no"pe' })
    const html = await answer.text()
    expect(answer.status).toBe(422)
    expect(faultIn(html, 'username')).toBe('Username must not start or end with white space')
    expect(faultIn(html, 'email')).toBe('Email must be an email address')
    expect([valueIn(html, 'username'), valueIn(html, 'email')]).toEqual([' x', 'no&quot;pe'])
    expect(/<input id="username"[^>]*>/.exec(html)?.[0]).toContain('autofocus')
    expect(html).toContain('<title>Error: Add a user')
  })

  test('names the field that is taken', async () => {
    const { email } = await create()
    const answer = await send('/users/new', { ...newUser(), email: email.toUpperCase() })
    const html = await answer.text()
    expect([answer.status, faultIn(html, 'email')]).toEqual([409, 'Email is taken by another user'])
    expect(html).toContain('<input id="username" name="username"')
    expect(/<input id="username"[^>]*>/.exec(html)?.[0]).toContain('aria-invalid="false"')
  })

  test('takes nothing but a form', async () => {
    const headers = { 'content-type': 'application/json' }
    const [user, url] = [newUser(), `${api.url}/users/new`]
    const answer = await fetch(url, {
      method: 'POST',
      headers: { ...headers, accept: BROWSER },
      body: JSON.stringify(user),
    })
    expect([answer.status, faultIn(await answer.text(), 'username')]).toEqual([422, 'Username must be a string'])
  })

  test('is a form for nothing but GET, HEAD and POST', async () => {
    for (const method of ['PUT', 'PATCH', 'DELETE']) {
      expect((await fetch(`${api.url}/users/new`, { method })).headers.get('content-type')).toContain('problem+json')
    }
    expect((await fetch(`${api.url}/users/new`, { method: 'HEAD' })).status).toBe(200)
  })
})

describe('editing and deleting', () => {
  const formOf = async (path: string) => {
    const html = await (await open(path)).text()
    const named = ['username', 'email', 'etag'].map((name) => [
      name,
      (valueIn(html, name) ?? '').replaceAll('&quot;', '"'),
    ])
    return Object.fromEntries(named) as Record<'username' | 'email' | 'etag', string>
  }

  test('saves what was typed, and leads to the user', async () => {
    const { id } = await create()
    const form = await formOf(`/users/${id}/edit`)
    expect(form.etag).toBe('"1"')
    const { status, headers } = await send(`/users/${id}/edit`, { ...form, username: `Edited ${id}` })
    const [path = '', target] = (headers.get('location') ?? '').split('#')
    expect([status, target]).toEqual([303, `user-${id}`])
    expect(await (await open(path)).text()).toContain(`<bdi>Edited ${id}</bdi>`)
    expect(await stored(id)).toMatchObject({ username: `Edited ${id}`, email: form.email })
  })

  test('an older version saves nothing and shows both; what is sent then is saved', async () => {
    const { id, email } = await create()
    const form = await formOf(`/users/${id}/edit`)
    await api.request('PATCH', `/users/${id}`, { username: `Theirs ${id}` })
    const answer = await send(`/users/${id}/edit`, { ...form, username: `Mine ${id}` })
    const html = await answer.text()
    expect(answer.status).toBe(412)
    expect(html).toContain('Someone has changed this user')
    expect(html).toContain(`Username is <bdi>Theirs ${id}</bdi> by now`)
    expect(html).not.toContain('Email is')
    expect(valueIn(html, 'username')).toBe(`Mine ${id}`)
    expect((await stored(id)).username).toBe(`Theirs ${id}`)
    const etag = (valueIn(html, 'etag') ?? '').replaceAll('&quot;', '"')
    expect((await send(`/users/${id}/edit`, { username: `Mine ${id}`, email, etag })).status).toBe(303)
    expect((await stored(id)).username).toBe(`Mine ${id}`)
  })

  test('a form without a version changes nothing', async () => {
    const { id, username } = await create()
    for (const verb of ['edit', 'delete']) expect((await send(`/users/${id}/${verb}`, newUser())).status).toBe(400)
    expect((await stored(id)).username).toBe(username)
  })

  test('asks before it deletes, and deletes only the version that it showed', async () => {
    const { id } = await create()
    const form = await formOf(`/users/${id}/delete`)
    expect((await stored(id)).id).toBe(id)
    await api.request('PATCH', `/users/${id}`, { username: `Later ${id}` })
    const stale = await send(`/users/${id}/delete`, form)
    const html = await stale.text()
    expect([stale.status, html]).toEqual([412, expect.stringContaining(`Username is <bdi>Later ${id}</bdi> by now`)])
    const etag = (valueIn(html, 'etag') ?? '').replaceAll('&quot;', '"')
    expect(valueIn(html, 'username')).toBe(form.username)
    expect((await send(`/users/${id}/delete`, { ...form, etag })).status).toBe(303)
    expect((await api.request('GET', `/users/${id}`)).status).toBe(404)
    expect((await send(`/users/${id}/delete`, { ...form, etag })).status).toBe(404)
  })
})

describe('forms of other sites', () => {
  test.each([
    ['another origin', { origin: 'https://evil.example' }],
    ['an origin that is hidden', { origin: 'null' }],
    ['another site', { origin: 'null', 'sec-fetch-site': 'cross-site' }],
    ['another port of this host', { origin: 'http://127.0.0.1:1' }],
    ['text that is no origin', { origin: '127.0.0.1' }],
    ['nothing', { origin: '' }],
  ])('%s is refused with a page, and nothing is done', async (_, headers) => {
    const { id } = await create()
    const user = newUser()
    for (const path of ['/users/new', `/users/${id}/edit`, `/users/${id}/delete`]) {
      const answer = await send(path, { ...user, etag: '"1"' }, headers)
      expect([answer.status, answer.headers.get('content-type')]).toEqual([403, 'text/html; charset=utf-8'])
      expect(await answer.text()).toContain('sent from another site')
    }
    expect((await stored(id)).id).toBe(id)
    expect((await api.request('GET', `/users?username=${user.username}`)).body.users).toEqual([])
  })

  test('this site over TLS, which a proxy ends, is no other: only an old browser leaves it to the origin to say so', async () => {
    const origin = api.url.replace('http:', 'https:')
    expect((await send('/users/new', newUser(), { origin })).status).toBe(303)
    expect((await send('/users/new', newUser(), { origin, 'sec-fetch-site': 'same-origin' })).status).toBe(303)
    for (const site of ['same-site', 'cross-site', 'none', 'nonsense']) {
      expect((await send('/users/new', newUser(), { origin, 'sec-fetch-site': site })).status, site).toBe(403)
      expect((await send('/users/new', newUser(), { 'sec-fetch-site': site })).status, site).toBe(403)
    }
  })

  test('the API goes on without a guard: a plain DELETE passes', async () => {
    const { id } = await create()
    expect((await api.request('DELETE', `/users/${id}`, undefined, { origin: 'https://evil.example' })).status).toBe(
      204,
    )
  })
})

test('a database that is away says so and when to try again, and what was typed is kept', async () => {
  const away = await startApi({
    DATABASE_URL: 'postgres://u:p@127.0.0.1:1/x',
    STARTUP_WAIT_MS: '0',
    DEADLINE_MS: '500',
  })
  try {
    const list = await open('/users', {}, away)
    expect([list.status, list.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await list.text()).toContain('Try again in 1 s.')
    const typed = newUser()
    const answer = await send('/users/new', typed, {}, away)
    const html = await answer.text()
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
    expect(html).toContain('Try again in 1 s.')
    expect([valueIn(html, 'username'), valueIn(html, 'email')]).toEqual(Object.values(typed))
  } finally {
    await away.close()
  }
})
