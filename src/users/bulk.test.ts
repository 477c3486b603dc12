import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'
import { createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { type FaultyNetwork, startProxyTo } from '../../test/proxy.ts'
import { events } from '../events.ts'

const MAX_BODY_BYTES = 1000

let database: TestDatabase
let network: FaultyNetwork
let api: Api
beforeAll(async () => {
  database = await createTestDatabase()
  const proxied = await startProxyTo(database.url)
  network = proxied.network
  const limits = { MAX_STREAMS: '2', MAX_BODY_BYTES: String(MAX_BODY_BYTES), REQUEST_TIMEOUT_MS: '1500' }
  api = await startApi({ DATABASE_URL: proxied.url, ...limits, HEADERS_TIMEOUT_MS: '1000' })
})
afterAll(async () => {
  await api.close()
  network.close()
  await database.drop()
})

const ndjson = { 'content-type': 'application/x-ndjson' }
let count = 0
const newUser = () => {
  count++
  return { username: `bulk${count}`, email: `bulk${count}@example.com` }
}
const fileOf = (users: object[]) => users.map((user) => `${JSON.stringify(user)}\n`).join('')
const linesIn = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const none = { lines: 0, created: 0, skipped: 0, conflict: 0, invalid: 0 }

async function upload(body: string | Uint8Array, query = '', more: Record<string, string> = {}) {
  const answer = await api.request('POST', `/users${query}`, body, { ...ndjson, ...more })
  expect([answer.status, answer.headers.get('content-type')], answer.text).toEqual([200, 'application/x-ndjson'])
  return linesIn(answer.text)
}
const usernames = async () => (await database.sql`select username from users`).map(({ username }) => username)

/** An upload whose lines the test sends. */
async function begin(headers = 'Transfer-Encoding: chunked') {
  const socket = connect(api.port, '127.0.0.1').setEncoding('utf8')
  onTestFinished(() => void socket.destroy())
  let text = ''
  socket.on('data', (part) => (text += part)).on('error', () => {})
  await once(socket, 'connect')
  socket.write(`POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n${headers}\r\n\r\n`)
  return {
    socket,
    answer: () => text,
    send: (part: string) => socket.write(`${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`),
  }
}

describe('each line', () => {
  test('is a user of its own, with a result in its place, and the last line sums up', async () => {
    const [one, two, three] = [newUser(), newUser(), newUser()]
    const results = await upload(fileOf([one, { ...two, email: one.email }, two, { ...three, age: 3 }, three]))
    const taken = {
      detail: 'Another user has this email.',
      errors: [{ pointer: '/email', detail: 'is taken by another user' }],
    }
    expect(results).toMatchObject([
      { line: 1, outcome: 'created' },
      { line: 2, outcome: 'conflict', ...taken },
      { line: 3, outcome: 'created' },
      { line: 4, outcome: 'invalid', errors: [{ pointer: '/age', detail: 'is not known' }] },
      { line: 5, outcome: 'created' },
      { lines: 5, created: 3, skipped: 0, conflict: 1, invalid: 1 },
    ])
    for (const [i, user] of [one, undefined, two, undefined, three].entries()) {
      if (user) expect((await api.request('GET', `/users/${results[i].id}`)).body).toMatchObject(user)
    }
    expect(await upload(fileOf([one, { ...two, email: one.email }]), '?onConflict=skip')).toMatchObject([
      { line: 1, outcome: 'skipped', detail: 'Another user has this username and this email.' },
      { line: 2, outcome: 'skipped', errors: [{ pointer: '/username' }, { pointer: '/email' }] },
      { ...none, lines: 2, skipped: 2 },
    ])
    expect((await upload(fileOf([one]), '?onConflict=fail')).at(-1)).toEqual({ ...none, lines: 1, conflict: 1 })
  })

  test.each([
    ['nothing', '', 0],
    ['only blank lines', '\n \r\n\t\n\n', 0],
    ['no end of the last line', JSON.stringify(newUser()), 1],
    ['a mark at the beginning, and CRLF', `\ufeff${JSON.stringify(newUser())}\r\n${JSON.stringify(newUser())}\r\n`, 2],
    ['blank lines between', `\n${JSON.stringify(newUser())}\n\n\n${JSON.stringify(newUser())}\n\n`, 2],
  ])('is found where there is %s', async (_, body, created) => {
    const results = await upload(body)
    expect(results.at(-1)).toEqual({ ...none, lines: created, created })
    const numbers = body.split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [i + 1]))
    expect(results.slice(0, -1).map(({ line }) => line)).toEqual(numbers)
  })

  test('that is no JSON, no UTF-8, no object or too long is invalid, and the next one is read', async () => {
    const [good, long] = [newUser(), newUser()]
    const padded = (user: object, bytes: number) => JSON.stringify(user).padEnd(bytes)
    const lines = [
      '{',
      '[]',
      'null',
      padded(long, MAX_BODY_BYTES + 1),
      `"${'x'.repeat(200_000)}"`,
      padded(long, MAX_BODY_BYTES),
    ]
    const wrong = Buffer.from(`${lines.join('\n')}\n{"username":"\xff"}\n`, 'latin1')
    const results = await upload(Buffer.concat([wrong, Buffer.from(fileOf([good]))]))
    expect(results.map(({ outcome, detail }) => [outcome, detail])).toEqual([
      ['invalid', 'The line is not valid JSON.'],
      ['invalid', 'the body must be a JSON object'],
      ['invalid', 'the body must be a JSON object'],
      ['invalid', 'The line must have at most 1000 bytes.'],
      ['invalid', 'The line must have at most 1000 bytes.'],
      ['created', undefined],
      ['invalid', 'The line is not valid UTF-8.'],
      ['created', undefined],
      [undefined, undefined],
    ])
  })

  test('is an event of the audit trail if it created a user', async () => {
    const told: object[] = []
    const listen = (_: unknown, fields: object) => told.push(fields)
    events.on('changed', listen)
    onTestFinished(() => void events.off('changed', listen))
    const [one, two] = [newUser(), newUser()]
    const results = await upload(fileOf([one, one, { ...two, email: '' }, two]))
    const ids = results.filter(({ outcome }) => outcome === 'created').map(({ id }) => id)
    expect(told).toEqual(ids.map((user) => ({ operation: 'create', user, version: 1, outcome: 'done' })))
    expect(ids).toHaveLength(2)
  })
})

test('what GET gives can be sent to another database as it is', async () => {
  const users = [
    { username: 'Zo\u00eb \u2028', email: 'Zo\u00eb@m\u00fcnchen.example' },
    { username: '"quoted" \\', email: "o'hara+x@example.com" },
  ]
  const username = 'a\u0301\u{1f600}'
  expect(
    (
      await upload(
        fileOf([{ ...users[0], username: 'Zo\u00eb \u2028x' }, users[1] as object, { ...newUser(), username }]),
      )
    ).at(-1).created,
  ).toBe(3)
  const other = await startApi()
  onTestFinished(() => other.close())
  const exported = (from: Api) => from.request('GET', '/users', undefined, { accept: ndjson['content-type'] })
  const { text } = await exported(api)
  const answer = await other.request('POST', '/users', text, ndjson)
  expect(linesIn(answer.text).at(-1)).toEqual({ ...none, lines: linesIn(text).length, created: linesIn(text).length })
  const values = (lines: { username: string; email: string }[]) =>
    lines.map(({ username, email }) => `${username} ${email}`).sort()
  expect(values(linesIn((await exported(other)).text))).toEqual(values(linesIn(text)))
})

test('many lines are many statements of up to 1000 rows, and many conflicts few questions', async () => {
  const file = fileOf(Array.from({ length: 5000 }, newUser))
  network.sent()
  const results = await upload(file)
  expect(results.at(-1)).toEqual({ ...none, lines: 5000, created: 5000 })
  expect(results.slice(0, -1).map(({ line }) => line)).toEqual(Array.from({ length: 5000 }, (_, i) => i + 1))
  const executed = () => network.sent().replaceAll(/[^E]/g, '').length
  expect(executed()).toBeLessThan(60)
  expect((await upload(file, '?onConflict=skip')).at(-1)).toEqual({ ...none, lines: 5000, skipped: 5000 })
  expect(executed()).toBeLessThan(120)
})

test('a line that comes alone is answered at once', async () => {
  const { send, answer } = await begin()
  for (const line of [1, 2, 3]) {
    send(fileOf([newUser()]))
    await expect.poll(answer).toContain(`{"line":${line},"outcome":"created"`)
  }
  send('{"username":"half')
  send(`${count}","email":"half@example.com"}\n`)
  await expect.poll(answer).toContain('{"line":4,"outcome":"created"')
})

describe('a request', () => {
  test.each([
    ['an Idempotency-Key', 400, '', { 'idempotency-key': 'a' }],
    ['an unknown onConflict', 400, '?onConflict=maybe', {}],
    ['onConflict twice', 400, '?onConflict=skip&onConflict=skip', {}],
    ['an unknown parameter', 400, '?other=1', {}],
    ['a compressed body', 415, '', { 'content-encoding': 'gzip' }],
    ['another charset', 415, '', { 'content-type': 'application/x-ndjson; charset=latin1' }],
  ])('with %s is refused: %i', async (_, status, query, headers) => {
    const user = newUser()
    const answer = await api.request('POST', `/users${query}`, fileOf([user]), { ...ndjson, ...headers } as never)
    expect(answer.status).toBe(status)
    expect(await usernames()).not.toContain(user.username)
  })

  test('with lines to another method or path is refused', async () => {
    expect((await api.request('PUT', '/users/1', fileOf([newUser()]), ndjson)).status).toBe(415)
    expect((await api.request('POST', '/users/1', fileOf([newUser()]), ndjson)).status).toBe(405)
    const form = await fetch(`${api.url}/users/new`, { method: 'POST', headers: ndjson, body: fileOf([newUser()]) })
    expect(form.status).toBe(422)
  })

  test('that asks first is told to go on, or is refused before it has sent anything', async () => {
    const going = await begin('Transfer-Encoding: chunked\r\nExpect: 100-continue')
    await expect.poll(going.answer).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    going.send(fileOf([newUser()]))
    await expect.poll(going.answer).toContain('"outcome":"created"')
    const refused = await begin('Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nIdempotency-Key: a')
    await expect.poll(refused.answer).toMatch(/^HTTP\/1.1 400 /)
  })

  test('beyond MAX_STREAMS is turned away, and the places come back', async () => {
    const uploads = [await begin(), await begin()]
    for (const { send, answer } of uploads) {
      send(fileOf([newUser()]))
      await expect.poll(answer).toContain('created')
    }
    const refused = await api.request('POST', '/users', fileOf([newUser()]), ndjson)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await api.request('POST', '/users', newUser())).status).toBe(201)
    for (const { socket } of uploads) socket.destroy()
    await expect.poll(async () => (await api.request('POST', '/users', '', ndjson)).status).toBe(200)
  })
})

describe('a client', () => {
  test('may take longer than a request may: only each line is in a hurry', async () => {
    const { socket, send, answer } = await begin()
    const start = performance.now()
    // Longer than REQUEST_TIMEOUT_MS and until Node has looked twice.
    for (let line = 1; performance.now() - start < 4000; line++) {
      send(fileOf([newUser()]))
      await expect.poll(answer, { interval: 250 }).toContain(`{"line":${line},`)
    }
    socket.write('0\r\n\r\n')
    await expect.poll(answer).toContain('{"lines":')
  })

  test('whose line does not end is told so, and cut', async () => {
    const { socket, send, answer } = await begin()
    send(fileOf([newUser()]))
    await expect.poll(answer).toContain('created')
    const trickle = setInterval(() => send('x'), 50)
    onTestFinished(() => clearInterval(trickle))
    await new Promise((resolve) => socket.once('close', resolve))
    expect(answer()).toContain('"status":408,"detail":"A line did not arrive in time."')
    expect(answer()).not.toContain('"lines":')
  })

  test('that sends nothing in time gets 408', async () => {
    const { socket, answer } = await begin()
    await new Promise((resolve) => socket.once('close', resolve))
    expect(answer()).toMatch(/^HTTP\/1.1 408 /)
  })

  test('that hangs up leaves whole lines behind, and may send all again', async () => {
    const users = Array.from({ length: 3000 }, newUser)
    const { socket, send, answer } = await begin()
    send(fileOf(users).slice(0, -20))
    await expect.poll(answer).toContain('created')
    socket.destroy()
    const last = users.at(-1)
    const results = await upload(fileOf(users), '?onConflict=skip')
    expect(results.at(-1)).toMatchObject({ lines: 3000, conflict: 0, invalid: 0 })
    expect(results.at(-1).skipped).toBeGreaterThan(0)
    expect(results.at(-2).outcome).toBe('created')
    expect(await usernames()).toContain(last?.username)
  })

  test('that does not read its results is not read from', async () => {
    const { socket, send, answer } = await begin()
    send(fileOf([newUser()]))
    await expect.poll(answer).toContain('created')
    socket.pause()
    const invalid = '{}\n'.repeat(20_000)
    // Until no buffer has room.
    const isStuck = () => {
      if (socket.writableLength < 1_000_000) send(invalid)
      return socket.bytesWritten - socket.writableLength
    }
    let [before, same] = [-1, 0]
    await expect
      .poll(
        () => {
          const now = isStuck()
          same = now === before ? same + 1 : 0
          before = now
          return same
        },
        { interval: 50 },
      )
      .toBeGreaterThan(10)
    expect((await api.request('GET', '/users?limit=1')).status).toBe(200)
  })
})

test('a database that goes away ends the answer with a problem, and nothing that was answered is lost', async () => {
  const users = Array.from({ length: 2000 }, newUser)
  const { socket, send, answer } = await begin()
  send(fileOf(users.slice(0, 500)))
  await expect.poll(answer).toContain('created')
  let sent = 500
  const more = setInterval(() => {
    if (sent < users.length) send(fileOf(users.slice(sent, sent + 50)))
    sent += 50
  }, 5)
  onTestFinished(() => clearInterval(more))
  network.silence(true)
  await expect.poll(answer).toContain('"status":503')
  await new Promise((resolve) => socket.once('close', resolve))
  network.silence(false)
  network.cut()
  const results = [...answer().matchAll(/^\{.*\}$/gm)].map(([line]) => JSON.parse(line))
  expect(results.at(-1)).toMatchObject({ status: 503, detail: expect.stringContaining('onConflict=skip') })
  const names = await usernames()
  for (const { line, outcome } of results.slice(0, -1)) {
    expect(outcome).toBe('created')
    expect(names).toContain(users[line - 1]?.username)
  }
  await expect.poll(async () => (await api.request('GET', '/readyz')).status).toBe(200)
  const again = await upload(fileOf(users), '?onConflict=skip')
  expect(again.at(-1)).toMatchObject({ lines: 2000, conflict: 0, invalid: 0 })
})
