import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'

let api: Api
beforeAll(async () => {
  api = await startApi({ MAX_BODY_BYTES: '300000' })
})
afterAll(() => api.close())

let count = 0
const newUser = () => {
  count++
  return { username: `user${count}`, email: `user${count}@example.com` }
}
const create = async (user = newUser()) => {
  const answer = await api.request('POST', '/users', user)
  expect(answer.status, answer.text).toBe(201)
  return answer.body as ReturnType<typeof newUser> & { id: number; createdAt: string; updatedAt: string }
}
const json = { 'content-type': 'application/json' }

test('users may be kept by their own client and asked for again, problems may not be kept', async () => {
  const user = newUser()
  const { id } = await create(user)
  const cacheControl = async (method: string, path: string, body?: object, headers?: Record<string, string>) =>
    (await api.request(method, path, body, headers)).headers.get('cache-control')
  expect(await cacheControl('GET', '/users')).toBe('private, no-cache')
  expect(await cacheControl('GET', `/users/${id}`)).toBe('private, no-cache')
  expect(await cacheControl('GET', `/users/${id}`, undefined, { 'if-none-match': '"1"' })).toBe('private, no-cache')
  expect(await cacheControl('PUT', `/users/${id}`, user)).toBe('private, no-cache')
  expect(await cacheControl('GET', '/users', undefined, { accept: 'application/x-ndjson' })).toBe('private, no-store')
  for (const path of ['/users/abc', '/users/999999999', '/users?limit=0', '/nothing']) {
    expect(await cacheControl('GET', path)).toBe('no-store')
  }
})

describe('POST /users', () => {
  test('creates a user and says where it is and at which version', async () => {
    const user = newUser()
    const { status, headers, body } = await api.request('POST', '/users', user)
    expect(status).toBe(201)
    expect(body).toEqual({ id: body.id, ...user, createdAt: body.createdAt, updatedAt: body.createdAt })
    expect(body.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(Math.abs(Date.parse(body.createdAt) - Date.now())).toBeLessThan(60_000)
    expect(headers.get('location')).toBe(`/users/${body.id}`)
    expect(headers.get('etag')).toBe('"1"')
    expect((await api.request('GET', `/users/${body.id}`)).body).toEqual(body)
  })

  test.each([
    ['malformed', '{"username": Alice}'],
    ['truncated', '{"username": "Alice", "email": "al'],
    ['empty', ''],
    ['invalid UTF-8', Buffer.from('{"username":"\xff\xfe","email":"a@example.com"}', 'latin1')],
    ['followed by more', '{"username":"a","email":"a@example.com"} x'],
    ['262,144 brackets', '['.repeat(262_144)],
  ])('refuses JSON that is %s with 400', async (_, body) => {
    expect((await api.request('POST', '/users', body, json)).status).toBe(400)
  })

  test('refuses a compressed body with 415', async () => {
    const answer = await api.request('POST', '/users', gzipSync(JSON.stringify(newUser())), {
      ...json,
      'content-encoding': 'gzip',
    })
    expect([answer.status, answer.headers.get('accept-encoding')]).toEqual([415, 'identity'])
  })

  const email = 'bad@example.com'
  test.each([
    ['null', 'null', ['']],
    ['an array', '[]', ['']],
    ['a string', '"Alice"', ['']],
    ['131,072 levels', `${'['.repeat(131_072)}${']'.repeat(131_072)}`, ['']],
    ['20,000 levels of objects', `${'{"username":'.repeat(20_000)}1${'}'.repeat(20_000)}`, ['/username', '/email']],
    ['nothing in it', '{}', ['/username', '/email']],
    ['no email', '{"username":"bad"}', ['/email']],
    ['a number for a name', `{"username":1,"email":"${email}"}`, ['/username']],
    ['null for a name', `{"username":null,"email":"${email}"}`, ['/username']],
    ['an unknown member', `{"username":"bad","email":"${email}","admin":true}`, ['/admin']],
    ['an unknown member that needs escaping', `{"username":"bad","email":"${email}","a/b~c":1}`, ['/a~1b~0c']],
    ['__proto__', `{"username":"bad","email":"${email}","__proto__":{"admin":true}}`, ['/__proto__']],
    ['constructor', `{"username":"bad","email":"${email}","constructor":1}`, ['/constructor']],
    ['\\u0000 in the name', `{"username":"a\\u0000b","email":"${email}"}`, ['/username']],
    ['\\u0000 in the email', '{"username":"bad","email":"a\\u0000@example.com"}', ['/email']],
    ['a line feed', `{"username":"a\\nb","email":"${email}"}`, ['/username']],
    ['a lone surrogate', `{"username":"a\\ud800b","email":"${email}"}`, ['/username']],
    ['an empty name', `{"username":"","email":"${email}"}`, ['/username']],
    ['only white space', `{"username":"   ","email":"${email}"}`, ['/username']],
    ['only wide white space', `{"username":"\u3000\u2003","email":"${email}"}`, ['/username']],
    ['white space at an end', `{"username":"bad ","email":"${email}"}`, ['/username']],
    ['81 characters', `{"username":"${'x'.repeat(81)}","email":"${email}"}`, ['/username']],
    ['81 astral characters', `{"username":"${'😀'.repeat(81)}","email":"${email}"}`, ['/username']],
    ['an email of 255 characters', `{"username":"bad","email":"${'x'.repeat(60)}@${'y'.repeat(194)}"}`, ['/email']],
    ['an email without @', '{"username":"bad","email":"example.com"}', ['/email']],
    ['an email of white space', '{"username":"bad","email":"a b@example.com"}', ['/email']],
    ['an email in angle brackets', '{"username":"bad","email":"<a@example.com>"}', ['/email']],
    ['an email with a scheme', '{"username":"bad","email":"mailto:a@example.com"}', ['/email']],
    ['an email that ends in a dot', '{"username":"bad","email":"a@example.com."}', ['/email']],
    ['two emails', '{"username":"bad","email":"a@example.com,b@example.com"}', ['/email']],
    ['an email with a port', '{"username":"bad","email":"a@example.com:25"}', ['/email']],
    ['an email with an invisible character', '{"username":"bad","email":"a\\u200b@example.com"}', ['/email']],
    ['an invisible name', `{"username":"\\u3164","email":"${email}"}`, ['/username']],
    ['a name of tags', `{"username":"\\udb40\\udc41","email":"${email}"}`, ['/username']],
  ])('refuses a body with %s with 422 and points at it', async (_, body, pointers) => {
    const answer = await api.request('POST', '/users', body, json)
    expect([answer.status, answer.body.title]).toEqual([422, 'Unprocessable Content'])
    expect(answer.body.type).toBe('urn:problem-type:validation')
    expect([...new Set(answer.body.errors.map((error: { pointer: string }) => error.pointer))]).toEqual(pointers)
    expect(answer.body.errors.every((error: { detail: string }) => error.detail.length > 5)).toBe(true)
  })

  test('names the first faults of thousands, and counts the others', async () => {
    const members = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`m${i}`, 1]))
    const { status, text, body } = await api.request('POST', '/users', { ...newUser(), ...members })
    expect([status, body.errors.length]).toEqual([422, 20])
    expect(body.detail).toMatch(/^m0 is not known; .*; and 19980 more$/)
    expect(text.length).toBeLessThan(5000)
  })

  test('cuts the long name of an unknown member, and mends one that is no Unicode', async () => {
    const { status, text, body } = await api.request('POST', '/users', `{"${'\\ud800'.repeat(20_000)}":1}`, json)
    expect([status, text.length < 1000]).toEqual([422, true])
    expect(body.errors[2].pointer).toBe(`/${'\ufffd'.repeat(100)}…`)
  })

  test.each([
    ['SQL', `Robert'); drop table users;--`],
    ['HTML', '<script>alert("1")</script>&amp;'],
    ['emoji', '👩‍👩‍👧‍👦 🏳️‍🌈'],
    ['right to left', 'مرحبا עולם'],
    ['80 astral characters', '😀'.repeat(80)],
    ['array syntax', '{"a\\",NULL}'],
    ['the word NULL', 'NULL'],
    ['a backslash', 'a\\b"c'],
  ])('takes %s as a name and gives it back byte for byte', async (_, username) => {
    const { id } = await create({ ...newUser(), username })
    const { text, body } = await api.request('GET', `/users/${id}`)
    expect(body.username).toBe(username)
    expect(text).toContain(JSON.stringify(username))
  })

  test('escapes U+2028 and U+2029 in all answers, for they end lines for some programs', async () => {
    const { id, username } = await create({ ...newUser(), username: 'one\u2028two\u2029three' })
    const answers = await Promise.all([
      api.request('GET', `/users/${id}`),
      api.request('GET', `/users?${new URLSearchParams({ username })}`),
      api.request('GET', '/users', undefined, { accept: 'application/x-ndjson' }),
      api.request('POST', '/users', { [username]: 1 }),
    ])
    for (const { text } of answers) expect(text).toContain('one\\u2028two\\u2029three')
    expect(answers.map(({ text }) => text).join()).not.toMatch(/[\u2028\u2029]/)
    expect(answers[0]?.body.username).toBe(username)
  })

  test('takes 80 characters that come as 240, and keeps them composed', async () => {
    const username = '\u0390'.repeat(80)
    const { id } = await create({ ...newUser(), username: username.normalize('NFD') })
    expect((await api.request('GET', `/users/${id}`)).body.username).toBe(username)
    const found = await api.request('GET', `/users?${new URLSearchParams({ username: username.normalize('NFD') })}`)
    expect(found.body.users).toHaveLength(1)
  })

  test('refuses at once a name that would take seconds to normalize', async () => {
    const username = `a${'\u0301'.repeat(60_000)}${'\u0323'.repeat(60_000)}`
    const start = performance.now()
    const { status, body } = await api.request('POST', '/users', { ...newUser(), username })
    expect([status, body.errors]).toEqual([422, [{ pointer: '/username', detail: 'must have at most 80 characters' }]])
    expect(performance.now() - start).toBeLessThan(3000)
  })

  test('keeps an email of 254 characters as given', async () => {
    const address = `${'X'.repeat(64)}@${`${'y'.repeat(62)}.`.repeat(3)}`.replace(/.$/, 'y')
    expect((await create({ ...newUser(), email: address })).email).toBe(address)
  })

  test.each([
    ['plus@example.com', 'plus+tag@example.com', 'Plus+Other@example.com'],
    ['ユーザー@例え.テスト', 'иван@почта.рф', 'δοκιμή@παράδειγμα.δοκιμή', '用户@例子.广告', '😀@☃.example'],
  ])('takes %s and gives it back byte for byte, found by what was sent', async (...addresses) => {
    for (const email of addresses) {
      const user = await create({ ...newUser(), email })
      expect(user.email).toBe(email)
      expect((await api.request('GET', `/users?${new URLSearchParams({ email })}`)).body.users).toEqual([user])
    }
  })

  test.each([
    ['Unicode', 'alice@bücher.example', 'alice@xn--bcher-kva.example'],
    ['Punycode', 'bob@xn--bcher-kva.example', 'bob@bücher.example'],
    ['upper case', 'carol@BÜCHER.example', 'Carol@XN--BCHER-KVA.example'],
  ])('has one user for one mailbox, whose domain first came in %s', async (_, first, second) => {
    const user = await create({ ...newUser(), email: first })
    expect(user.email).toMatch(/@bücher\.example$/)
    for (const email of [first, second, user.email, user.email.toUpperCase()]) {
      const rival = await api.request('POST', '/users', { ...newUser(), email })
      expect([rival.status, rival.body.errors[0].pointer]).toEqual([409, '/email'])
      expect((await api.request('GET', `/users?${new URLSearchParams({ email })}`)).body.users).toEqual([user])
      const both = new URLSearchParams({ email, username: user.username })
      expect((await api.request('GET', `/users?${both}`)).body.users).toEqual([user])
    }
    const other = await create()
    expect((await api.request('PATCH', `/users/${other.id}`, { email: second })).status).toBe(409)
    const replaced = await api.request('PUT', `/users/${user.id}`, { username: user.username, email: second })
    expect([replaced.status, replaced.body.email]).toEqual([200, second.replace(/@.*/, '@bücher.example')])
  })

  test.each([
    ['the same name', { username: 'Ünïcode' }, ['/username']],
    ['the name in another case', { username: 'ÜNÏCODE' }, ['/username']],
    ['the name in another normal form', { username: 'Ünïcode'.normalize('NFD') }, ['/username']],
    ['the email in another case', { email: 'TAKEN@EXAMPLE.com' }, ['/email']],
    ['both', { username: 'ünïcode', email: 'Taken@example.com' }, ['/username', '/email']],
  ])('answers 409 and names the field for %s', async (_, taken, pointers) => {
    await api.request('POST', '/users', { username: 'Ünïcode', email: 'taken@example.com' })
    const { status, body } = await api.request('POST', '/users', { ...newUser(), ...taken })
    expect(status).toBe(409)
    expect(body.type).toBe('urn:problem-type:conflict')
    expect(body.errors.map((error: { pointer: string }) => error.pointer)).toEqual(pointers)
  })

  test('treats sharp s and SS as the same name, as Unicode case folding does', async () => {
    await create({ ...newUser(), username: 'Straße' })
    expect((await api.request('POST', '/users', { ...newUser(), username: 'STRASSE' })).status).toBe(409)
  })

  test.each([
    ['text/plain', { 'content-type': 'text/plain' }],
    ['none', { 'content-type': '' }],
    ['a form', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['a merge patch', { 'content-type': 'application/merge-patch+json' }],
    ['another charset', { 'content-type': 'application/json; charset=iso-8859-1' }],
    ['another charset in quotes', { 'content-type': 'application/json; a=b;charset="utf-16"' }],
  ])('answers 415 to Content-Type %s and says what it takes', async (_, headers) => {
    const answer = await api.request('POST', '/users', JSON.stringify(newUser()), headers)
    expect(answer.status).toBe(415)
    expect(answer.headers.get('accept')).toBe('application/json, application/x-ndjson')
  })

  test('takes a charset and odd case in Content-Type', async () => {
    const headers = { 'content-type': 'Application/JSON; Charset="UTF-8"' }
    expect((await api.request('POST', '/users', JSON.stringify(newUser()), headers)).status).toBe(201)
  })

  test('answers 413 to a body over the limit that says its length', async () => {
    const { status, body } = await api.request('POST', '/users', 'x'.repeat(300_001), json)
    expect([status, body.title]).toEqual([413, 'Content Too Large'])
  })

  test('takes identity as Content-Encoding, in any case', async () => {
    const headers = { ...json, 'content-encoding': 'Identity' }
    expect((await api.request('POST', '/users', JSON.stringify(newUser()), headers)).status).toBe(201)
  })

  test('answers 413 to a body over the limit that comes in chunks', async () => {
    const chunk = `1000\r\n${'x'.repeat(0x1000)}\r\n`
    const answer = await api.raw(
      `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(80)}0\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1.1 413 [\s\S]*application\/problem\+json/)
  })

  test('takes a body in chunks', async () => {
    const body = JSON.stringify(newUser())
    const answer = await api.raw(
      `POST /users HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1.1 201 /)
  })

  test('lets one of 50 equal requests win and answers 409 to the others', async () => {
    const user = newUser()
    const answers = await Promise.all(Array.from({ length: 50 }, () => api.request('POST', '/users', user)))
    const statuses = answers.map(({ status }) => status).sort()
    expect(statuses).toEqual([201, ...Array(49).fill(409)])
  })
})

describe('Idempotency-Key', () => {
  const post = (key: string, user: object) => api.request('POST', '/users', user, { ...json, 'idempotency-key': key })

  test('gives the same 201 to the same key and body', async () => {
    const user = newUser()
    const first = await post('key-1', user)
    const second = await post('key-1', user)
    expect(first.status).toBe(201)
    expect([second.status, second.text]).toEqual([201, first.text])
    for (const name of ['etag', 'location']) expect(second.headers.get(name)).toBe(first.headers.get(name))
  })

  test('gives the same 201 even after the user was changed', async () => {
    const user = newUser()
    const first = await post('key-2', user)
    await api.request('PUT', `/users/${first.body.id}`, newUser())
    expect((await post('key-2', user)).text).toBe(first.text)
  })

  test('takes a body for the same whose domain is the same in another form, for another whose local part is not', async () => {
    const { username } = newUser()
    const first = await post('key-5', { username, email: 'erin@bücher.example' })
    for (const email of ['erin@xn--bcher-kva.example', 'erin@BÜCHER.EXAMPLE']) {
      const second = await post('key-5', { username, email })
      expect([second.status, second.text]).toEqual([201, first.text])
    }
    expect((await post('key-5', { username, email: 'Erin@bücher.example' })).status).toBe(422)
  })

  test('answers 422 to another body', async () => {
    await post('key-3', newUser())
    const { status, body } = await post('key-3', newUser())
    expect([status, body.type]).toEqual([422, 'urn:problem-type:idempotency-key-reused'])
  })

  test('gives 20 equal requests at once the same 201', async () => {
    const user = newUser()
    const answers = await Promise.all(Array.from({ length: 20 }, () => post('key-4', user)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
  })

  test.each([
    ['10 KB', 'x'.repeat(10_240)],
    ['256 characters', 'x'.repeat(256)],
    ['a space', 'a b'],
    ['nothing', ''],
    ['a letter outside ASCII', 'é'],
  ])('answers 400 to a key of %s', async (_, key) => {
    expect((await post(key, newUser())).status).toBe(400)
  })
})

describe('GET /users/{id}', () => {
  test.each(['abc', '1.5', '-1', '0', '1e3', '%00', '%zz', '01', '+1', '1%20', '٣', '0x1', '1,2', 'null'])(
    'answers 400 to the id %s',
    async (id) => {
      for (const method of ['GET', 'DELETE']) expect((await api.request(method, `/users/${id}`)).status).toBe(400)
      expect((await api.request('PUT', `/users/${id}`, newUser())).status).toBe(400)
    },
  )

  test.each(['999999999', '9007199254740991', '9007199254740993', '9223372036854775808', '9'.repeat(500)])(
    'answers 404 to the id %s',
    async (id) => {
      for (const method of ['GET', 'DELETE']) expect((await api.request(method, `/users/${id}`)).status).toBe(404)
      expect((await api.request('PUT', `/users/${id}`, newUser())).status).toBe(404)
      expect((await api.request('PATCH', `/users/${id}`, {})).status).toBe(404)
    },
  )

  test('answers 304 to If-None-Match of the version, 200 of another', async () => {
    const { id } = await create()
    const get = (tags: string) => api.request('GET', `/users/${id}`, undefined, { 'if-none-match': tags })
    for (const tags of ['"1"', 'W/"1"', '"7", "1"', '*']) {
      const answer = await get(tags)
      expect([answer.status, answer.text, answer.headers.get('etag')], tags).toEqual([304, '', '"1"'])
    }
    expect((await get('"2"')).status).toBe(200)
    expect((await get('1')).status).toBe(400)
  })

  test('answers 412 to an If-Match that does not hold', async () => {
    const { id } = await create()
    const get = (tags: string) => api.request('GET', `/users/${id}`, undefined, { 'if-match': tags })
    expect((await get('"2"')).status).toBe(412)
    expect((await get('"1"')).status).toBe(200)
  })

  test('HEAD answers like GET, without the body', async () => {
    const { id } = await create()
    const { status, headers, text } = await api.request('HEAD', `/users/${id}`)
    expect([status, headers.get('etag'), text]).toEqual([200, '"1"', ''])
    expect((await api.request('HEAD', '/users/999999999')).status).toBe(404)
    expect((await api.request('HEAD', '/users')).status).toBe(200)
  })
})

describe('PUT /users/{id}', () => {
  test('replaces username and email and counts the version up', async () => {
    const before = await create()
    const user = newUser()
    const { status, headers, body } = await api.request('PUT', `/users/${before.id}`, user)
    expect([status, headers.get('etag')]).toEqual([200, '"2"'])
    expect(body).toEqual({ ...before, ...user, updatedAt: body.updatedAt })
    expect(body.updatedAt >= before.updatedAt).toBe(true)
  })

  test('lets a user keep its own names, in another case too', async () => {
    const { id, username, email } = await create()
    const user = { username: username.toUpperCase(), email }
    expect((await api.request('PUT', `/users/${id}`, user)).body).toMatchObject(user)
  })

  test('answers 409 and names the field that another user has', async () => {
    const [other, { id, username }] = [await create(), await create()]
    const byEmail = await api.request('PUT', `/users/${id}`, { username, email: other.email.toUpperCase() })
    expect([byEmail.status, byEmail.body.errors[0].pointer]).toEqual([409, '/email'])
    const byName = await api.request('PATCH', `/users/${id}`, { username: other.username })
    expect([byName.status, byName.body.errors[0].pointer]).toEqual([409, '/username'])
  })

  test('needs both members', async () => {
    const { id } = await create()
    const { status, body } = await api.request('PUT', `/users/${id}`, { username: 'only' })
    expect([status, body.errors[0].pointer]).toEqual([422, '/email'])
  })

  test('answers 412 to a stale If-Match and changes nothing', async () => {
    const before = await create()
    const put = (tags: string) => api.request('PUT', `/users/${before.id}`, newUser(), { ...json, 'if-match': tags })
    for (const tags of ['"2"', 'W/"1"', '"abc"', '"2", "3"']) expect((await put(tags)).status, tags).toBe(412)
    expect((await api.request('GET', `/users/${before.id}`)).body).toEqual(before)
    expect((await put('"9", "1"')).status).toBe(200)
    expect((await put('*')).status).toBe(200)
  })

  test('If-None-Match keeps a change from a version, or from any', async () => {
    const before = await create()
    const send = (method: string, tags: string, body?: object) =>
      api.request(method, `/users/${before.id}`, body, { ...(body && json), 'if-none-match': tags })
    for (const tags of ['*', '"1"', 'W/"1"']) {
      expect((await send('PUT', tags, newUser())).status).toBe(412)
      expect((await send('PATCH', tags, {})).status).toBe(412)
      expect((await send('DELETE', tags)).status).toBe(412)
    }
    expect((await api.request('GET', `/users/${before.id}`)).body).toEqual(before)
    expect((await send('PUT', '"7"', newUser())).status).toBe(200)
    expect((await send('PUT', 'x', newUser())).status).toBe(400)
    expect((await api.request('PUT', '/users/999999999', newUser(), { ...json, 'if-none-match': '*' })).status).toBe(
      404,
    )
  })

  test('answers 404, not 412, where there is no user', async () => {
    for (const tags of ['"1"', '*']) {
      const answer = await api.request('PUT', '/users/999999999', newUser(), { ...json, 'if-match': tags })
      expect(answer.status).toBe(404)
    }
  })

  test.each(['1', '"1', 'abc', '"1" "2"', ''])('answers 400 to the If-Match %s', async (tags) => {
    const { id } = await create()
    for (const method of ['PUT', 'PATCH']) {
      expect((await api.request(method, `/users/${id}`, newUser(), { ...json, 'if-match': tags })).status).toBe(400)
    }
    expect((await api.request('DELETE', `/users/${id}`, undefined, { 'if-match': tags })).status).toBe(400)
  })

  test('lets one of 50 changes from the same version win and answers 412 to the others', async () => {
    const { id } = await create()
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => api.request('PUT', `/users/${id}`, newUser(), { ...json, 'if-match': '"1"' })),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array(49).fill(412)])
  })
})

describe('PATCH /users/{id}', () => {
  test.each(['application/json', 'application/merge-patch+json'])('changes what it names, as %s', async (type) => {
    const before = await create()
    const { username } = newUser()
    const patch = JSON.stringify({ username })
    const { status, body, headers } = await api.request('PATCH', `/users/${before.id}`, patch, { 'content-type': type })
    expect([status, headers.get('etag')]).toEqual([200, '"2"'])
    expect(body).toEqual({ ...before, username, updatedAt: body.updatedAt })
  })

  test('of {} changes nothing', async () => {
    const before = await create()
    const { status, body, headers } = await api.request('PATCH', `/users/${before.id}`, {})
    expect([status, body, headers.get('etag')]).toEqual([200, before, '"1"'])
    const stale = await api.request('PATCH', `/users/${before.id}`, {}, { ...json, 'if-match': '"2"' })
    expect(stale.status).toBe(412)
  })

  test('answers 422 to null: neither member can be removed', async () => {
    const { id } = await create()
    const { status, body } = await api.request('PATCH', `/users/${id}`, { email: null })
    expect([status, body.errors[0].pointer]).toEqual([422, '/email'])
  })

  test('answers 415 to a JSON Patch and says what it takes', async () => {
    const { id } = await create()
    const headers = { 'content-type': 'application/json-patch+json' }
    const answer = await api.request('PATCH', `/users/${id}`, '[]', headers)
    expect([answer.status, answer.headers.get('accept-patch')]).toEqual([
      415,
      'application/merge-patch+json, application/json',
    ])
  })
})

describe('DELETE /users/{id}', () => {
  test('answers 204, then 404', async () => {
    const { id } = await create()
    const first = await api.request('DELETE', `/users/${id}`)
    expect([first.status, first.text]).toEqual([204, ''])
    expect((await api.request('DELETE', `/users/${id}`)).status).toBe(404)
    expect((await api.request('GET', `/users/${id}`)).status).toBe(404)
  })

  test('answers 412 to a stale If-Match and deletes nothing', async () => {
    const { id } = await create()
    const remove = (tags: string) => api.request('DELETE', `/users/${id}`, undefined, { 'if-match': tags })
    expect((await remove('"2"')).status).toBe(412)
    expect((await api.request('GET', `/users/${id}`)).status).toBe(200)
    expect((await remove('"1"')).status).toBe(204)
  })

  test('frees the names', async () => {
    const { id, username, email } = await create()
    await api.request('DELETE', `/users/${id}`)
    expect((await create({ username, email })).id).toBeGreaterThan(id)
  })
})

describe('GET /users', () => {
  test('walks all users by id, following next and Link alike', async () => {
    for (let i = 0; i < 5; i++) await create()
    const all = (await api.request('GET', '/users?limit=1000')).body.users as { id: number }[]
    const walked: { id: number }[] = []
    let path: string | undefined = '/users?limit=2'
    while (path) {
      const { body, headers } = await api.request('GET', path)
      walked.push(...body.users)
      const link = headers.get('link')
      expect(link === null).toBe(body.next === null)
      path = link ? /^<(.*)>; rel="next"$/.exec(link)?.[1] : undefined
      if (path) expect(path).toBe(`/users?limit=2&cursor=${body.next}`)
    }
    expect(walked).toEqual(all)
    expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).toSorted((a, b) => a - b))
  })

  test('has no next where the last page is full', async () => {
    const total = (await api.request('GET', '/users?limit=1000')).body.users.length
    expect((await api.request('GET', `/users?limit=${total}`)).body.next).toBe(null)
    expect((await api.request('GET', `/users?limit=${total - 1}`)).body.next).not.toBe(null)
  })

  test('looks up by username or email, whatever the case', async () => {
    const user = await create({ username: 'Look&Up=1', email: 'Look+up@example.com' })
    const find = async (query: Record<string, string>) =>
      (await api.request('GET', `/users?${new URLSearchParams(query)}`)).body
    for (const query of [
      { username: user.username },
      { username: 'LOOK&UP=1' },
      { email: 'look+UP@example.com' },
      { username: 'look&up=1', email: user.email },
    ]) {
      expect(await find(query)).toEqual({ users: [user], next: null })
    }
    expect(await find({ username: 'Look' })).toEqual({ users: [], next: null })
    expect(await find({ username: user.username, email: 'other@example.com' })).toEqual({ users: [], next: null })
  })

  test.each([
    'limit=0',
    'limit=-1',
    'limit=abc',
    'limit=1e9',
    'limit=1001',
    'limit=1.5',
    'limit=',
    'limit=1&limit=2',
    'cursor=',
    'cursor=abc',
    'cursor=AQAAAAAAAAABAAAAAA',
    'cursor=%00',
    'cursor=x&cursor=y',
    'username=a&username=b',
    'username=a%00b',
    `username=${'x'.repeat(641)}`,
    `email=${'x'.repeat(2033)}`,
    'email=%0a',
    'username=%zz',
    'username=%ff',
    'username=%',
    'username=%C3%',
    'username=a&%zz=b',
    'page=2',
    'usernamePrefix=',
    'usernamePrefix=%00',
    'usernamePrefix=a%09',
    'usernamePrefix=a&usernamePrefix=b',
    `usernamePrefix=${'x'.repeat(81)}`,
    'usernamePrefix=a&username=a',
    'usernamePrefix=a&email=',
    'usernamePrefix=a&id=1',
    'usernamePrefix=a&cursor=MTox',
    'cursor=Mjph',
    'id=1&username=a',
    'id=1&email=a',
  ])('answers 400 to ?%s', async (query) => {
    expect((await api.request('GET', `/users?${query}`)).status).toBe(400)
  })

  describe('by the beginning of the username', () => {
    const named = (names: string[]) =>
      Promise.all(names.map((username, i) => create({ username, email: `p${i}.${Math.random()}@example.com` })))
    const search = async (usernamePrefix: string, query = {}, headers = {}) =>
      api.request('GET', `/users?${new URLSearchParams({ usernamePrefix, ...query })}`, undefined, headers)
    const namesOf = async (prefix: string) =>
      (await search(prefix)).body.users.map(({ username }: { username: string }) => username)

    test('finds users whatever the case, by name, and follows next and Link alike', async () => {
      const users = await named(['Quince', 'quark', 'QUa', 'quiz show', 'Qu'])
      const all = await search('qU')
      expect(all.body).toEqual({ users: [4, 2, 1, 0, 3].map((i) => users[i]), next: null })
      expect(await namesOf('quiz ')).toEqual(['quiz show'])
      const walked: unknown[] = []
      for (let path = '/users?usernamePrefix=qU&limit=2'; path; ) {
        const { body, headers } = await api.request('GET', path)
        walked.push(...body.users)
        path = /^<(.*)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1] ?? ''
        if (path) expect(path).toBe(`/users?usernamePrefix=qU&limit=2&cursor=${body.next}`)
        else expect(body.next).toBeNull()
      }
      expect(walked).toEqual(all.body.users)
      expect((await search('qU', { limit: '5' })).body.next).toBeNull()
    })

    test('takes %, _, backslash and what arrays are written with as they are', async () => {
      const names = ['%wild', '_wild', '\\wild', '"wild', '{wild', ',wild', "'wild", '-- wild']
      await named([...names, 'wild'])
      for (const name of names) expect(await namesOf(name.slice(0, 3)), name).toEqual([name])
      expect(await namesOf('%')).toEqual(['%wild'])
      expect(await namesOf('wi%')).toEqual([])
    })

    test('finds names to the last code point, however often it comes', async () => {
      const last = '\u{10ffff}'
      const names = ['z', 'z\ud7ff', 'z\ue000', `z${last}`, `z${last.repeat(79)}`, 'z\u{1f600}', last, last.repeat(80)]
      await named([...names, '{z'])
      expect(await namesOf('z')).toEqual([names[0], names[1], names[2], names[5], names[3], names[4]])
      expect(await namesOf('z\ud7ff')).toEqual(['z\ud7ff'])
      expect(await namesOf(last)).toEqual([last, last.repeat(80)])
      expect(await namesOf(last.repeat(80))).toEqual([last.repeat(80)])
    })

    test('finds names that are longest when folded, by a beginning that is', async () => {
      const names = [`x${'ﬃ'.repeat(79)}`, `x${'ΐ'.repeat(79)}`]
      await named(names)
      for (const name of names) expect(await namesOf(name)).toEqual([name])
      expect(await namesOf('xffiff')).toEqual([names[0]])
    })

    test('knows ß as ss, one sigma, and the dotless i as a letter of its own; an accent makes another letter', async () => {
      await named(['Weiß', 'weissmann', 'ΧΑΟΣ', 'χαος 2', 'Iğdır', 'ıssız', 'İzmir', 'Ézra', 'ezra'])
      expect(await namesOf('WEIS')).toEqual(['Weiß', 'weissmann'])
      expect(await namesOf('weiß')).toEqual(['Weiß', 'weissmann'])
      expect(await namesOf('χαοσ')).toEqual(['ΧΑΟΣ', 'χαος 2'])
      expect(await namesOf('ı')).toEqual(['ıssız'])
      expect(await namesOf('iğ')).toEqual(['Iğdır'])
      expect(await namesOf('İ')).toEqual(['İzmir'])
      expect(await namesOf('e\u0301z')).toEqual(['Ézra'])
      expect(await namesOf('EZR')).toEqual(['ezra'])
    })

    test('a user who is deleted or renamed leaves the place of the next page where it was', async () => {
      const users = await named(['walk a', 'walk b', 'walk c', 'walk d'])
      const first = await search('walk', { limit: '2' })
      await api.request('DELETE', `/users/${users[1]?.id}`)
      await api.request('PATCH', `/users/${users[0]?.id}`, { username: 'walk z' })
      const { body } = await search('walk', { limit: '2', cursor: first.body.next })
      expect(body.users.map(({ username }: { username: string }) => username)).toEqual(['walk c', 'walk d'])
    })

    test('a cursor is a place among all names, so another beginning goes on from there', async () => {
      await named(['chain a', 'chain ab', 'chain b', 'chain ba'])
      const { next } = (await search('chain a', { limit: '1' })).body
      const { users } = (await search('chain', { cursor: next })).body
      expect(users).toMatchObject([{ username: 'chain ab' }, { username: 'chain b' }, { username: 'chain ba' }])
      const list = await api.request('GET', `/users?cursor=${next}`)
      const lines = await api.request('GET', `/users?cursor=${next}`, undefined, { accept: 'application/x-ndjson' })
      for (const { status, body } of [list, lines]) {
        expect([status, body.detail]).toEqual([
          400,
          'cursor is not a cursor of this list: take `next` of the page before',
        ])
      }
    })

    test('says what it does not go with', async () => {
      const details = await Promise.all([
        search('a', { username: 'a' }),
        search('a', { id: '1' }),
        search('a', {}, { accept: 'application/x-ndjson' }),
        search(''),
      ])
      expect(details.map(({ status, body }) => [status, body.detail])).toEqual([
        [400, 'usernamePrefix does not go with username or email'],
        [400, 'id goes with no other parameter'],
        [400, 'usernamePrefix does not go with application/x-ndjson, which has every row.'],
        [400, 'usernamePrefix must have a character'],
      ])
    })
  })

  test('tells whoever writes + in an email how to', async () => {
    const { status, body } = await api.request('GET', '/users?email=a+b@example.com')
    expect([status, body.detail]).toEqual([400, 'email must not have a space: write + as %2B'])
  })

  test.each([
    ['APPLICATION/X-NDJSON', 'application/x-ndjson'],
    ['application/x-ndjson;q=0.1, */*', 'application/json'],
  ])('answers Accept: %s with %s', async (accept, mediaType) => {
    const { headers } = await api.request('GET', '/users', undefined, { accept })
    expect(headers.get('content-type')).toBe(mediaType)
  })

  test('answers 400 to a cursor that was tampered with, at every character', async () => {
    const { next } = (await api.request('GET', '/users?limit=1')).body
    for (let i = 0; i < next.length; i++) {
      const tampered = next.slice(0, i) + (next[i] === 'A' ? 'B' : 'A') + next.slice(i + 1)
      expect((await api.request('GET', `/users?cursor=${tampered}`)).status, tampered).toBe(400)
    }
    expect((await api.request('GET', `/users?cursor=${next}`)).status).toBe(200)
  })
})

describe('a user that is older than a rule', () => {
  const insert = async (user: ReturnType<typeof newUser>) => {
    const { sql } = api.database ?? expect.fail('it has no database of its own')
    const [row] = await sql`insert into users ${sql(user)} returning id`
    return `/users/${row?.id}`
  }

  test.each([
    ['email', '<old@example.com>'],
    ['email', 'old@example.com.'],
    ['email', 'old@'],
    ['username', '\u3164'],
  ] as const)('and whose %s is now refused, %s, is read, found, changed, mended and deleted', async (field, value) => {
    const older = { ...newUser(), [field]: value }
    const path = await insert(older)
    expect((await api.request('GET', path)).body).toMatchObject(older)
    const found = await api.request('GET', `/users?${new URLSearchParams({ [field]: value })}`)
    expect(found.body.users).toMatchObject([older])
    const fit = newUser()
    const otherField = field === 'email' ? 'username' : 'email'
    const changed = await api.request('PATCH', path, { [otherField]: fit[otherField] })
    expect([changed.status, changed.body]).toMatchObject([200, { ...fit, [field]: value }])
    expect((await api.request('PATCH', path, { [field]: value })).status).toBe(422)
    expect((await api.request('PATCH', path, { [field]: fit[field] })).body).toMatchObject(fit)
    expect((await api.request('DELETE', path)).status).toBe(204)
    expect((await api.request('DELETE', await insert(older))).status).toBe(204)
  })
})

test.each([
  ['Content-Type', 415, ['Content-Type: application/json', 'Content-Type: application/json']],
  ['Idempotency-Key', 400, ['Content-Type: application/json', 'Idempotency-Key: a', 'Idempotency-Key: b']],
])('two lines of %s are answered %i', async (_, status, headers) => {
  const body = JSON.stringify(newUser())
  const head = ['POST /users HTTP/1.1', 'Host: a', 'Connection: close', `Content-Length: ${body.length}`, ...headers]
  expect(await api.raw(`${head.join('\r\n')}\r\n\r\n${body}`)).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
})

test.each([
  ['If-Match', ['If-Match: "7"', 'If-Match: "1"'], 200],
  ['If-None-Match', ['If-None-Match: "7"', 'If-None-Match: "1"'], 304],
  ['Accept', ['Accept: text/html', 'Accept: application/json'], 200],
])('two lines of %s are one list', async (_, headers, status) => {
  const { id } = await create()
  const head = [`GET /users/${id} HTTP/1.1`, 'Host: a', 'Connection: close', ...headers]
  expect(await api.raw(`${head.join('\r\n')}\r\n\r\n`)).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
})
