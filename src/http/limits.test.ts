import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { zValidator } from '@hono/zod-validator'
import { Hono } from 'hono'
import { validator } from 'hono/validator'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import * as z from 'zod'
import { type Api, startApi } from '../../test/api.ts'
import { parseConfig } from '../config.ts'
import { startServer } from '../server.ts'
import type { Env } from './env.ts'
import { receiveBody } from './limits.ts'
import { requestLog } from './log.ts'
import { onError } from './problem.ts'

const MAX_BODY_BYTES = 100_000

let api: Api
let sockets: Socket[]
beforeEach(async () => {
  sockets = []
  api = await startApi({ MAX_REQUESTS: '5', MAX_BODY_BYTES: String(MAX_BODY_BYTES) })
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  await api.close()
})

const post = (headers: string, body = '') =>
  `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${headers}\r\n\r\n${body}`
const unfinished = [
  post('Content-Length: 100', '{"user'),
  post('Transfer-Encoding: chunked', '64\r\n{"user'),
  post(`Content-Length: ${MAX_BODY_BYTES}`, '{"user'),
]
let count = 0
const newUser = () => {
  count++
  return { username: `user${count}`, email: `user${count}@example.com` }
}

/** Sends bytes and leaves the connection open. */
async function send(bytes: string) {
  const socket = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true })
  sockets.push(socket)
  let text = ''
  socket.setEncoding('utf8').on('error', () => {})
  socket.on('data', (chunk) => (text += chunk))
  await once(socket, 'connect')
  socket.write(bytes)
  return { socket, answer: () => text }
}

describe('requests under way', () => {
  test('over the limit are turned away, and told when to come back', async () => {
    const requests = await api.database?.sql.begin(async (transaction) => {
      await transaction`lock table users in access exclusive mode`
      // Five wait for the lock.
      const waiting = Array.from({ length: 6 }, () => api.request('GET', '/users'))
      const refused = await Promise.race(waiting)
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
      expect((await api.request('GET', '/livez')).status).toBe(200)
      // In arrays of their own: the transaction would wait for promises.
      return waiting.map((request) => [request])
    })
    const answers = await Promise.all(requests?.flat() ?? [])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 503])
  })

  test('are those that have arrived: bodies that dawdle keep nobody out', async () => {
    for (let i = 0; i < 30; i++) await send(unfinished[i % 3] as string)
    await sleep(100)
    expect((await api.request('GET', '/users')).status).toBe(200)
    expect((await api.request('POST', '/users', newUser())).status).toBe(201)
  })

  test('are over when the client hangs up half-way', async () => {
    for (let i = 0; i < 20; i++) {
      const { socket } = await send(unfinished[i % 3] as string)
      socket.destroy()
      const reader = await send('GET /users HTTP/1.1\r\nHost: a\r\n\r\n')
      reader.socket.destroy()
    }
    await expect.poll(async () => (await api.request('GET', '/users')).status).toBe(200)
    for (let i = 0; i < 10; i++) expect((await api.request('POST', '/users', newUser())).status).toBe(201)
  })
})

describe('large bodies', () => {
  test('that arrive at a time are limited: beyond it 503, and all others are served', async () => {
    for (let i = 0; i < 64; i++) await send(unfinished[1 + (i % 2)] as string)
    await sleep(100)
    const padded = `${JSON.stringify(newUser())}${' '.repeat(50_000)}`
    const json = { 'content-type': 'application/json' }
    const refused = await api.request('POST', '/users', padded, json)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await api.request('GET', '/users')).status).toBe(200)
    expect((await api.request('POST', '/users', newUser())).status).toBe(201)
    for (const socket of sockets) socket.destroy()
    await expect.poll(async () => (await api.request('POST', '/users', padded, json)).status).toBe(201)
  })

  test('may come in parts of any size', async () => {
    const user = JSON.stringify(newUser())
    const body = `${user}${' '.repeat(1000)}`
    const parts = [...body].map((byte) => `1\r\n${byte}\r\n`).join('')
    const { socket, answer } = await send(post('Transfer-Encoding: chunked\r\nConnection: close'))
    for (let i = 0; i < parts.length; i += 101) socket.write(parts.slice(i, i + 101))
    socket.write('0\r\n\r\n')
    await once(socket, 'end')
    expect(answer()).toMatch(/^HTTP\/1.1 201 /)
    expect(answer()).toContain(user.slice(1, -1))
  })
})

describe('a body over the limit', () => {
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`
  const endings = ['Connection: close', 'Connection: keep-alive']
  test.each(
    endings.flatMap((connection) => [
      [connection, 'its length', post(`Content-Length: 8000000\r\n${connection}`, 'x'.repeat(8_000_000))],
      [connection, 'chunks', post(`Transfer-Encoding: chunked\r\n${connection}`, `${chunk.repeat(120)}0\r\n\r\n`)],
    ]),
  )(
    'is answered 413 to a client that sends all of it before it reads, with %s and %s',
    async (connection, _, bytes) => {
      const socket = connect(api.port, '127.0.0.1')
      sockets.push(socket)
      let failure: Error | undefined
      socket.on('error', (error) => (failure = error))
      await new Promise((resolve) => socket.write(bytes as string, resolve))
      await sleep(50)
      let text = ''
      socket.setEncoding('utf8').on('data', (part) => (text += part))
      await expect.poll(() => text, { timeout: 10_000 }).toMatch(/^HTTP\/1.1 413 [\s\S]*"status":413/)
      expect(failure).toBeUndefined()
      if (connection === 'Connection: close') return
      socket.write('GET /livez HTTP/1.1\r\nHost: a\r\n\r\n')
      await expect.poll(() => text).toContain('HTTP/1.1 200 ')
    },
  )

  test('that has no end is answered 413 and cut', async () => {
    const { socket, answer } = await send(post('Transfer-Encoding: chunked'))
    const flood = setInterval(() => socket.write(chunk), 10)
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(flood)
    expect(answer()).toMatch(/^HTTP\/1.1 413 /)
  })

  test('is refused before it is sent if the client asks first', async () => {
    const { socket, answer } = await send(post(`Content-Length: ${MAX_BODY_BYTES + 1}\r\nExpect: 100-continue`))
    await once(socket, 'end')
    expect(answer()).toMatch(/^HTTP\/1.1 413 /)
  })
})

test('a client that asks first is told to go on', async () => {
  const body = JSON.stringify(newUser())
  const { socket, answer } = await send(
    post(`Content-Length: ${body.length}\r\nExpect: 100-continue\r\nConnection: close`),
  )
  await expect.poll(answer).toBe('HTTP/1.1 100 Continue\r\n\r\n')
  socket.write(body)
  await once(socket, 'end')
  expect(answer()).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 201 /)
})

test('a client of HTTP/1.0 gets no 100 Continue', async () => {
  const body = JSON.stringify(newUser())
  const request = post(`Content-Length: ${body.length}\r\nExpect: 100-continue`, body)
  expect(await api.raw(request.replace('HTTP/1.1', 'HTTP/1.0'))).toMatch(/^HTTP\/1.1 201 /)
})

describe('a body that was received', () => {
  const User = z.object({ name: z.string() })
  const app = new Hono<Env>()
    .use(requestLog({ ...parseConfig({}), log: pino({ level: 'silent' }) }), receiveBody(1000))
    .post('/json', async (c) => c.json(await c.req.json()))
    .post('/raw', async (c) => c.json(await c.req.raw.json()))
    .post('/twice', async (c) => c.json([await c.req.text(), await c.req.json()][1]))
    .post(
      '/validator',
      validator('json', (value) => value),
      (c) => c.json(c.req.valid('json')),
    )
    .post('/zod', zValidator('json', User), (c) => c.json(c.req.valid('json')))
    .post('/bytes', async (c) => c.body(await c.req.arrayBuffer()))
    .post('/form', async (c) => c.json(await c.req.parseBody()))
  app.onError(onError)

  let server: Awaited<ReturnType<typeof startServer>>
  beforeAll(async () => {
    const config = parseConfig({ PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0' })
    server = await startServer({ ...config, fetch: app.fetch, stopping: new AbortController().signal })
  })
  afterAll(() => server.stop())
  const send = (path: string, type: string, body: string | Uint8Array<ArrayBuffer>) =>
    fetch(`http://127.0.0.1:${server.port}${path}`, { method: 'POST', headers: { 'content-type': type }, body })

  test.each(['/json', '/raw', '/twice', '/validator', '/zod'])('can be read as JSON: %s', async (path) => {
    const answer = await send(path, 'application/json', '{"name":"Ünïcode"}')
    expect([answer.status, await answer.json()]).toEqual([200, { name: 'Ünïcode' }])
  })

  test.each([
    ['/bytes', 'application/octet-stream', new Uint8Array([0, 255, 128])],
    ['/bytes', 'application/octet-stream', new Uint8Array()],
  ])('can be read as bytes: %s', async (path, type, body) => {
    expect(new Uint8Array(await (await send(path, type, body)).arrayBuffer())).toEqual(body)
  })

  test('can be read as a form', async () => {
    const answer = await send('/form', 'application/x-www-form-urlencoded', 'name=%C3%9Cn%C3%AFcode')
    expect(await answer.json()).toEqual({ name: 'Ünïcode' })
  })

  test.each(['/validator', '/zod'])('is answered 400 as a problem when it is no JSON: %s', async (path) => {
    const answer = await send(path, 'application/json', '{')
    expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/problem+json'])
  })

  test('is limited', async () => {
    expect((await send('/json', 'application/json', JSON.stringify('x'.repeat(1000)))).status).toBe(413)
  })
})
