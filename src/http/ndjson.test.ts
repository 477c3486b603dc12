import { once } from 'node:events'
import { connect } from 'node:net'
import { Hono } from 'hono'
import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { startApi } from '../../test/api.ts'
import type { UserStore } from '../users/store.ts'
import { wantsNdjson } from './ndjson.ts'

const fails = async () => {
  throw new Error('not asked for')
}

const time = '2026-01-02T03:04:05.678Z'
const user = { id: 1, username: 'Alice', email: 'alice@example.com', createdAt: time, updatedAt: time }

test('a stream whose source cannot be closed is an entry in the log, and no more', async () => {
  const users: UserStore = {
    get: fails,
    list: fails,
    listByName: fails,
    create: fails,
    update: fails,
    remove: fails,
    async *stream() {
      try {
        for (;;) yield Array.from({ length: 1000 }, () => user)
      } finally {
        await Promise.reject(new Error('the source is stuck'))
      }
    },
  }
  const entries: string[] = []
  const api = await startApi({}, { users, log: pino({}, { write: (line) => void entries.push(line) }) })
  onTestFinished(api.close)
  const socket = connect(api.port, '127.0.0.1')
  socket.write('GET /users HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n')
  await once(socket, 'readable')
  socket.destroy()
  await expect.poll(() => entries.join()).toContain('ndjson.test.ts')
  expect((await api.request('GET', '/livez')).status).toBe(200)
})

test.each([
  ['application/x-ndjson', true],
  ['APPLICATION/X-NDJSON', true],
  ['application/x-ndjson, */*', true],
  ['application/x-ndjson, application/json', true],
  ['application/x-ndjson, application/*;q=0.9', true],
  ['application/x-ndjson;q=0.5, application/json;q=0.4', true],
  ['', false],
  ['*/*', false],
  ['application/*', false],
  ['application/json', false],
  ['application/x-ndjson;q=0', false],
  ['application/x-ndjson;q=0.1, */*', false],
  ['application/json, application/x-ndjson;q=0.5', false],
  ['text/html, application/x-ndjson;q=0.9', false],
  ['text/csv', false],
])('Accept: %s wants ndjson: %s', async (accept, wanted) => {
  const app = new Hono().get('/', (c) => c.json(wantsNdjson(c)))
  expect(await (await app.request('/', { headers: { accept } })).json()).toBe(wanted)
})
