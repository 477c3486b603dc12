import { once } from 'node:events'
import { connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, problemIn, startApi } from '../test/api.ts'
import { parseConfig } from './config.ts'
import { startServer } from './server.ts'

let api: Api
beforeAll(async () => {
  api = await startApi({
    HEADERS_TIMEOUT_MS: '300',
    REQUEST_TIMEOUT_MS: '600',
    IDLE_TIMEOUT_MS: '2500',
    DEADLINE_MS: '2500',
  })
})
afterAll(() => api.close())

test('keeps idle connections for longer than the load balancer in front does', async () => {
  expect((await api.request('GET', '/livez')).headers.get('keep-alive')).toBe('timeout=620')
})

test('sleeps while there is nothing to do, with HEADERS_TIMEOUT_MS=0 too', async () => {
  const idle = await startApi({ HEADERS_TIMEOUT_MS: '0' })
  const turns = () => performance.nodeTiming.uvMetricsInfo.loopCount
  const before = turns()
  await sleep(1000)
  expect(turns() - before).toBeLessThan(400)
  await idle.close()
})

describe('slow and silent clients', () => {
  test('one that never reads is cut, and the others are served meanwhile', async () => {
    const socket = connect(api.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.pause()
    const request = 'GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n'
    const flood = setInterval(() => socket.write(request.repeat(100)), 5)
    const gone = new Promise((resolve) => socket.once('close', resolve))
    expect((await api.request('GET', '/livez')).status).toBe(200)
    await sleep(100)
    expect((await api.request('GET', '/livez')).status).toBe(200)
    setTimeout(() => clearInterval(flood), 1000)
    setTimeout(() => socket.resume(), 6000)
    await gone
  })

  test('one that sends a byte now and then is told that it is too slow, and cut', async () => {
    // Half open: it goes on sending after our end.
    const socket = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true }).setEncoding('utf8')
    let answer = ''
    socket.on('data', (text) => (answer += text)).on('error', () => {})
    const bytes = [...'GET /users HTTP/1.1\r\nHost: a-host-with-a-long-name\r\nX-Header: more and more\r\n\r\n']
    const drip = setInterval(() => socket.write(bytes.shift() ?? ''), 50)
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(drip)
    expect(problemIn(answer).status).toBe(408)
    expect(bytes.length).toBeGreaterThan(0)
  })

  test('a request that was answered 408 is not carried out when its body comes after all', async () => {
    const socket = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true }).setEncoding('utf8')
    let answer = ''
    socket.on('data', (text) => (answer += text)).on('error', () => {})
    const body = JSON.stringify({ username: 'toolate', email: 'toolate@example.com' })
    socket.write(
      `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
    )
    await expect.poll(() => answer, { timeout: 5000 }).toMatch(/^HTTP\/1\.1 408 /)
    socket.write(body.slice(5))
    await sleep(300)
    socket.destroy()
    expect((await api.request('GET', '/users?username=toolate')).body.users).toEqual([])
  })

  test('one that resets after garbage, or holds its end open, does no harm', async () => {
    for (let i = 0; i < 10; i++) {
      const socket = connect(api.port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.write('GARBAGE\r\n\r\n')
      setImmediate(() => socket.resetAndDestroy())
    }
    const open = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true })
    open.on('error', () => {}).resume()
    open.write('GARBAGE\r\n\r\n')
    await once(open, 'end')
    const drip = setInterval(() => open.write('x'), 20)
    await new Promise((resolve) => open.once('close', resolve))
    clearInterval(drip)
    expect((await api.request('GET', '/livez')).status).toBe(200)
  })

  test('one that hangs up half-way does not disturb the others', async () => {
    for (let i = 0; i < 20; i++) {
      const socket = connect(api.port, '127.0.0.1')
      socket.on('error', () => {})
      const length = i % 2 === 0 ? 'Content-Length: 100\r\n\r\n' : 'Transfer-Encoding: chunked\r\n\r\n64\r\n'
      socket.write(`POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${length}{"user`)
      await once(socket, 'connect')
      socket.destroy()
    }
    expect((await api.request('GET', '/users')).status).toBe(200)
  })
})

test('a stop cuts no answer whose end has not been sent yet', async () => {
  const text = 'x'.repeat(32 * 1024 * 1024)
  const config = parseConfig({ HOST: '127.0.0.1', DRAIN_DELAY_MS: '0' })
  const fetch = () => new Response(text)
  const server = await startServer({ ...config, PORT: 0, fetch, stopping: new AbortController().signal })
  const socket = connect(server.port, '127.0.0.1').pause()
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await once(socket, 'readable')
  const stopped = server.stop()
  const isRefused = () =>
    once(connect(server.port, '127.0.0.1'), 'connect').then(
      () => false,
      () => true,
    )
  await expect.poll(isRefused).toBe(true)
  let answer = ''
  for await (const part of socket.setEncoding('latin1')) answer += part
  expect(answer.split('\r\n\r\n')[1]?.length).toBe(text.length)
  await stopped
})

test('a stop waits neither for who sends nothing nor for who took a whole answer, and times out half a request', async () => {
  const times = { HEADERS_TIMEOUT_MS: '2000', DRAIN_DELAY_MS: '0', SHUTDOWN_TIMEOUT_MS: '60000' }
  const service = await startApi({ ...times, DATABASE_URL: api.database?.url ?? '' })
  const whole = 'GET /livez HTTP/1.1\r\nHost: a\r\n\r\n'
  const clients = ['', '', whole, whole.slice(0, -9)].map((text) => {
    const client = { socket: connect(service.port, '127.0.0.1').setEncoding('utf8'), answer: '' }
    client.socket.on('data', (part) => (client.answer += part)).on('error', () => {})
    client.socket.write(text)
    return client
  })
  await expect.poll(() => clients[2]?.answer).toMatch(/^HTTP\/1\.1 200 /)
  const closed = service.close()
  clients[1]?.socket.write(whole)
  await closed
  expect(clients.map(({ answer }) => answer.slice(9, 12))).toEqual(['', '200', '200', '408'])
})
