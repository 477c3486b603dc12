import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { type FaultyNetwork, startProxyTo } from '../../test/proxy.ts'
import { createPool, type Pool } from '../db/pool.ts'
import { encodeCursor } from '../http/list.ts'
import { createUserStore } from './store.ts'

const USERS = 50_000

let database: TestDatabase
let network: FaultyNetwork
let api: Api
beforeAll(async () => {
  database = await createTestDatabase()
  await database.sql`insert into users (username, email) select 'user' || i, 'user' || i || '@example.com' from generate_series(1, ${USERS}) i`
  await database.sql`update users set version = 2, updated_at = now() + interval '1 second' where id % 3 = 0`
  const proxied = await startProxyTo(database.url)
  network = proxied.network
  api = await startApi({ DATABASE_URL: proxied.url, MAX_STREAMS: '2' })
})
afterAll(async () => {
  await api.close()
  network.close()
  await database.drop()
})

const ndjson = { accept: 'application/x-ndjson' }
const request = `GET /users HTTP/1.1\r\nHost: a\r\nAccept: ${ndjson.accept}\r\n\r\n`
const statements = () => network.sent().replaceAll(/[^E]/g, '').length
const connections = async () => {
  const [row] =
    await database.sql`select count(*)::int as n from pg_stat_activity where application_name = 'test' and datname = current_database()`
  return row?.n as number
}

test('a stream has every user once, in the order of ids, the same as a page has', async () => {
  const { status, headers, text } = await api.request('GET', '/users', undefined, ndjson)
  expect([status, headers.get('content-type')]).toEqual([200, 'application/x-ndjson'])
  const users = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(users.map(({ id }) => id)).toEqual(Array.from({ length: USERS }, (_, i) => i + 1))
  const page = (await api.request('GET', '/users?limit=1000')).body
  expect(users.slice(0, 1000)).toEqual(page.users)
  const rest = await api.request('GET', `/users?cursor=${page.next}`, undefined, ndjson)
  expect(JSON.parse(rest.text.slice(0, rest.text.indexOf('\n'))).id).toBe(1001)
})

test('a stream is for those who prefer ndjson: the others get JSON', async () => {
  for (const accept of ['*/*', 'application/json', 'application/json, application/x-ndjson;q=0.5', 'text/csv']) {
    expect((await api.request('GET', '/users?limit=1', undefined, { accept })).body.users).toHaveLength(1)
  }
  for (const query of ['limit=5', 'username=user1', 'email=a@b']) {
    expect((await api.request('GET', `/users?${query}`, undefined, ndjson)).status).toBe(400)
  }
  const head = await api.request('HEAD', '/users', undefined, ndjson)
  expect([head.status, head.headers.get('content-type')]).toEqual([200, 'application/x-ndjson'])
  expect(await connections()).toBeLessThanOrEqual(2)
})

test('a stream stops reading the database while the client does not read', async () => {
  const before = await connections()
  const socket = connect({ port: api.port, host: '127.0.0.1' }).setEncoding('utf8')
  await once(socket, 'connect')
  network.sent()
  socket.write(request)
  await once(socket, 'readable')
  // Until the sockets' buffers are full.
  await expect.poll(statements, { interval: 500, timeout: 15_000 }).toBe(0)
  const memory = process.memoryUsage().arrayBuffers
  await sleep(1000)
  expect(statements()).toBe(0)
  expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(1_000_000)
  expect(await connections()).toBeLessThanOrEqual(before + 1)
  socket.destroy()
})

test('a stream rests for most of the time while others wait for the database', async () => {
  const address = addressOf(database.url)
  const db = createPool({ address, applicationName: 'other', deadlineMs: 5000, connections: 3 })
  let reading = 0
  const busy: Pool = {
    ...db,
    busy: () => true,
    async query(...statement) {
      const start = performance.now()
      await sleep(10)
      const rows = await db.query(...statement)
      reading += performance.now() - start
      return rows
    },
  }
  const start = performance.now()
  let pages = 0
  for await (const _ of createUserStore(busy).stream(USERS - 500)) pages++
  expect(pages).toBe(10)
  expect(performance.now() - start).toBeGreaterThan(5 * reading)
  await db.close(1000)
})

test('more than MAX_STREAMS streams at a time are turned away, and the places come back', async () => {
  const sockets = [1, 2].map(() => connect(api.port, '127.0.0.1'))
  for (const socket of sockets) {
    socket.write(request)
    await once(socket, 'readable')
  }
  const refused = await api.request('GET', '/users', undefined, ndjson)
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
  expect((await api.request('GET', '/users?limit=1')).status).toBe(200)
  for (const socket of sockets) socket.destroy()
  await expect
    .poll(async () => (await fetch(`${api.url}/users?cursor=${encodeCursor(USERS - 1)}`, { headers: ndjson })).status)
    .toBe(200)
})
