import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { type Api, startApi } from '../api.ts'
import { slowness } from '../machine.ts'
import { startProxy } from '../proxy.ts'
import { type Server, startReplication } from '../replication.ts'
import { logLines, sampleOf, serve } from '../service.ts'

const MAX_LAG_MS = 2000
/** The longest wait of a read while either server answers. Others who use the machine make it longer. */
const MAX_WAIT_MS = 1000 * slowness()

let pair: Awaited<ReturnType<typeof startReplication>>
let api: Api
beforeAll(async () => {
  pair = await startReplication()
  api = await startApi({
    DATABASE_URL: pair.primary.url,
    DATABASE_READ_URL: pair.replica.url,
    DB_READ_MAX_LAG_MS: String(MAX_LAG_MS),
  })
})
afterAll(async () => {
  await api?.close()
  await pair?.stop()
})

/** The messages that were sent to the replica while this ran: E for each statement. */
async function askedOfReplica(work: () => Promise<unknown>) {
  pair.replica.network.sent()
  await work()
  return pair.replica.network.sent().replaceAll(/[^E]/g, '').length
}
const page = (headers: Record<string, string> = {}) => api.request('GET', '/users?limit=5', undefined, headers)
/** Waits until both answer, and pages come from the replica. */
const used = () =>
  expect
    .poll(async () => [(await page()).status, api.state().up, api.state().replica?.up], { timeout: 20_000 })
    .toEqual([200, true, true])
let count = 0
const create = () => {
  count++
  return api.request('POST', '/users', { username: `user${count}`, email: `user${count}@example.com` })
}
async function timed<T>(work: Promise<T>) {
  const start = performance.now()
  return { answer: await work, ms: performance.now() - start }
}

beforeEach(async () => {
  await used()
  api.told.splice(0)
})

test('pages and streams go to the replica; gets, look-ups, writes and no-cache to the primary', async () => {
  const { id } = (await create()).body
  expect(await askedOfReplica(() => page())).toBeGreaterThan(0)
  const stream = (headers = {}) =>
    api.request('GET', '/users', undefined, { accept: 'application/x-ndjson', ...headers })
  expect(await askedOfReplica(() => stream())).toBeGreaterThan(0)
  const noCache = { 'cache-control': 'max-age=0, no-cache' }
  for (const work of [
    () => api.request('GET', `/users/${id}`),
    () => api.request('GET', `/users?username=user${count}`),
    () => api.request('GET', `/users?email=user${count}@example.com`),
    () => create(),
    () => page(noCache),
    () => stream(noCache),
    () => fetch(`${api.url}/users`, { headers: { accept: 'text/html' } }),
  ])
    expect(await askedOfReplica(work)).toBe(0)
  expect(api.told).toEqual([])
})

test('by DB_READ_HOST and DB_READ_PORT, as a process: metrics and log tell of the replica', async () => {
  const { hostname, port } = new URL(pair.replica.url)
  const env = { DATABASE_URL: pair.primary.url, DB_READ_HOST: hostname, DB_READ_PORT: port, METRICS_PORT: '0' }
  const service = await serve(env)
  const isUp = async () => {
    await (await fetch(`${service.url}/users`)).text()
    return sampleOf(await service.metrics(), 'db_replica_up')
  }
  await expect.poll(isUp).toBe(1)
  expect(sampleOf(await service.metrics(), 'db_replica_connections')).toBeGreaterThan(0)
  pair.replica.network.silence(true)
  await expect.poll(isUp).toBe(0)
  pair.replica.network.silence(false)
  await expect.poll(isUp).toBe(1)
  const lines = logLines(await service.stop()).map(({ msg }) => msg)
  expect(lines.filter((line) => /replica/.test(line))).toEqual(['replica unavailable', 'replica available'])
})

test('a replica that is too far behind is not asked: a page misses nothing older than the bound', async () => {
  await pair.lag(60_000)
  onTestFinished(() => pair.lag(0))
  await create()
  await sleep(MAX_LAG_MS)
  const { username } = (await create()).body
  await sleep(MAX_LAG_MS)
  const { body } = await api.request('GET', '/users?limit=1000')
  expect(body.users.at(-1).username).toBe(username)
  await page()
  expect(api.told).toEqual([['replica', 'it is too far behind']])
  await pair.lag(0)
  await used()
  expect(api.told).toEqual([
    ['replica', 'it is too far behind'],
    ['replica', undefined],
  ])
})

test('behind one name, a replica that is fit is asked, and one that is too far behind never', async () => {
  const several = await startReplication(['current', 'late'])
  const [late = several.replica] = several.others
  const url = new URL(several.replica.url)
  const ports = [several.replica, late].map(({ network }) => network.port)
  const network = await startProxy(ports)
  url.port = String(network.port)
  const api = await startApi({
    DATABASE_URL: several.primary.url,
    DATABASE_READ_URL: url.href,
    DB_READ_MAX_LAG_MS: String(MAX_LAG_MS),
  })
  onTestFinished(async () => {
    await api.close()
    network.close()
    await several.stop()
  })
  const page = async () => (await api.request('GET', '/users?limit=1000')).body.users
  await several.lag(60_000, late)
  const created = []
  for (let i = 0; i < 10; i++) {
    const answer = await api.request('POST', '/users', { username: `name${i}`, email: `name${i}@example.com` })
    created.push(answer.body)
    await sleep(MAX_LAG_MS / 2)
    // Of two intervals, what came before the last is there. Many at once, for each connection to be asked.
    const pages = await Promise.all(Array.from({ length: 20 }, page))
    for (const users of pages) expect(users).toEqual(expect.arrayContaining(created.slice(0, -2)))
  }
  several.replica.network.sent()
  await expect.poll(async () => (await page()).length && several.replica.network.sent()).toContain('E')
  await sleep(MAX_LAG_MS)
  expect(await page()).toEqual(created)
})

test('where the name of the primary leads to a replica as well, that one is not taken for the primary', async () => {
  const url = new URL(pair.primary.url)
  const network = await startProxy([pair.primary, pair.replica].map(({ network }) => network.port))
  url.port = String(network.port)
  await pair.lag(60_000)
  const api = await startApi({ DATABASE_URL: url.href, DATABASE_READ_URL: pair.replica.url })
  onTestFinished(async () => {
    await api.close()
    network.close()
    await pair.lag(0)
  })
  for (let i = 0; i < 5; i++) {
    const { id } = (await create()).body
    // Many at once, for each connection to be asked.
    const gets = Array.from({ length: 20 }, async () => (await api.request('GET', `/users/${id}`)).status)
    expect(await Promise.all(gets)).toEqual(gets.map(() => 200))
  }
  expect(api.told).toEqual([])
})

const outages = {
  killed: { begin: (server: Server) => server.signal('KILL'), end: (server: Server) => server.start() },
  stopped: { begin: (server: Server) => server.signal('STOP'), end: (server: Server) => server.signal('CONT') },
  'out of reach': {
    begin: ({ network }: Server) => network.silence(true),
    end: ({ network }: Server) => network.silence(false),
  },
}

/** Reads until `ms` have passed. Each read has to be answered with 200, in time. */
async function readFor(ms: number, paths: string[]) {
  const until = performance.now() + ms
  const read = async (path: string) => {
    while (performance.now() < until) {
      const { answer, ms } = await timed(fetch(api.url + path))
      await answer.text()
      expect([path, answer.status]).toEqual([path, 200])
      expect(ms, path).toBeLessThan(MAX_WAIT_MS)
    }
  }
  await Promise.all([...paths, ...paths].map(read))
}

test.each(Object.entries(outages))(
  'a replica is %s: the primary answers, and one line is told each way',
  async (_, outage) => {
    outage.begin(pair.replica)
    try {
      await readFor(3000, ['/users', '/users/1', '/readyz'])
      expect((await create()).status).toBe(201)
      expect(api.told).toEqual([['replica', expect.any(String)]])
    } finally {
      await outage.end(pair.replica)
    }
    await used()
    expect(api.told).toEqual([
      ['replica', expect.any(String)],
      ['replica', undefined],
    ])
  },
)

test('a replica that is slow: no page waits for it long, and soon none does', async () => {
  pair.replica.network.delay(2000)
  onTestFinished(() => pair.replica.network.delay(0))
  await readFor(1500, ['/users'])
  expect((await timed(page())).ms).toBeLessThan(MAX_WAIT_MS / 4)
  expect(api.told).toEqual([['replica', 'it did not answer in time']])
})

test.each(Object.entries(outages))(
  'the primary is %s: reads go on, the pod stays ready, and writes are refused',
  async (_, outage) => {
    const { id, username } = (await create()).body
    await expect.poll(async () => (await pair.replica.admin`select from users where id = ${id}`).length).toBe(1)
    outage.begin(pair.primary)
    try {
      const paths = ['/users', `/users/${id}`, `/users?username=${username}`, '/readyz']
      const reads = readFor(7000, paths)
      expect((await create()).status).toBe(503)
      await reads
      expect((await create()).status).toBe(503)
      expect(api.told).not.toContainEqual(['replica', expect.anything()])
    } finally {
      await outage.end(pair.primary)
    }
    await expect.poll(async () => (await create()).status).toBe(201)
  },
)

test('once the primary answers again, a page misses nothing older than the bound', async () => {
  await pair.replica.admin`select pg_wal_replay_pause()`
  onTestFinished(async () => void (await pair.replica.admin`select pg_wal_replay_resume()`))
  const { username } = (await create()).body
  pair.primary.signal('KILL')
  const names = async () =>
    (await api.request('GET', '/users?limit=1000')).body.users.map((user: { username: string }) => user.username)
  try {
    await sleep(MAX_LAG_MS)
    // It holds what it has to: nobody could have written since.
    expect(await names()).not.toContain(username)
  } finally {
    await pair.primary.start()
  }
  // Not polled by the test runner: what is asked here comes right after the first answer.
  while ((await create()).status !== 201) await sleep(5)
  expect(await names()).toContain(username)
})

test('as long as the primary answers, a get waits for it, however slow it is', async () => {
  const { id } = (await create()).body
  await pair.primary.admin.begin(async (transaction) => {
    await transaction`lock table users in access exclusive mode`
    const get = timed(api.request('GET', `/users/${id}`))
    expect(await askedOfReplica(() => get)).toBe(0)
    expect((await get).answer.status).toBe(503)
  })
})

test('both away: 503, and not ready; then all is right again by itself', async () => {
  pair.primary.network.silence(true)
  pair.replica.network.silence(true)
  await expect.poll(async () => (await api.request('GET', '/readyz')).status).toBe(503)
  for (const path of ['/users', '/users/1']) expect((await api.request('GET', path)).status).toBe(503)
  pair.primary.network.silence(false)
  pair.replica.network.silence(false)
  await expect.poll(async () => (await api.request('GET', '/readyz')).status).toBe(200)
})

test('a replica that is promoted carries no more pages, unless the primary is away', async () => {
  const { id } = (await create()).body
  const paths = ['/users', `/users/${id}`]
  await expect.poll(async () => (await pair.replica.admin`select from users where id = ${id}`).length).toBe(1)
  await pair.replica.admin`select pg_promote()`
  await sleep(MAX_LAG_MS)
  await readFor(1000, paths)
  expect(api.state().replica?.up).toBe(false)
  expect(api.told).toEqual([['replica', 'it is not a replica']])
  pair.primary.network.silence(true)
  onTestFinished(() => pair.primary.network.silence(false))
  await expect.poll(async () => (await api.request('GET', `/users/${id}`)).status, { timeout: 10_000 }).toBe(200)
  await readFor(1000, paths)
  pair.primary.network.silence(false)
  await expect.poll(async () => (await create()).status, { timeout: 10_000 }).toBe(201)
  const { username } = (await create()).body
  for (let i = 0; i < 20; i++)
    expect((await api.request('GET', '/users?limit=1000')).body.users.at(-1).username).toBe(username)
})
