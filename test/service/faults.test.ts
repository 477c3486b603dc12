import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import { type Postgres, startPostgres } from '../../dev/postgres.ts'
import { migrate } from '../../src/db/migrate.ts'
import { type Api, startApi } from '../api.ts'
import { addressOf } from '../database.ts'
import { slowness } from '../machine.ts'
import { type Pooler, startPooler } from '../pooler/pgbouncer.ts'
import { ROOT } from '../process.ts'
import { type FaultyNetwork, startProxy } from '../proxy.ts'

const DEADLINE_MS = 2000
/** What a machine may add to any wait: the more, the more others use it. */
const SLACK_MS = 1500 * slowness()
const pooled = inject('throughPooler') ?? false
/** Behind a pooler, a database that is gone looks like one that is silent: the pooler itself still takes connections. */
const KNOWN_GONE_MS = SLACK_MS + (pooled ? DEADLINE_MS : 0)

/** Two of them are never given to writes. */
const CONNECTIONS = 6
const role = { user: 'users_api', password: 'p', deadlineMs: DEADLINE_MS }
const settings = { fsync: 'off', max_connections: 20, superuser_reserved_connections: 3 }
const dataDir = join(tmpdir(), `users-api-faults-${process.pid}`)
let pg: Postgres
let pooler: Pooler | undefined
let proxy: FaultyNetwork
let api: Api
/** Where the service logs in, at this port. */
const urlAt = (port: number) => `postgres://${role.user}:${role.password}@127.0.0.1:${port}/postgres`
let admin: postgres.Sql
beforeAll(async () => {
  pg = await startPostgres({ settings, dataDir })
  await migrate({ address: addressOf(pg.url), folder: `${ROOT}drizzle`, api: role, MIGRATE_WAIT_MS: 0 })
  if (pooled) pooler = await startPooler(pg.url, [role], { pool_mode: 'transaction', server_login_retry: 1 })
  proxy = await startProxy(pooler?.port ?? pg.port)
  api = await startApi({
    DATABASE_URL: urlAt(proxy.port),
    DEADLINE_MS: String(DEADLINE_MS),
    DB_CONNECTIONS: String(CONNECTIONS),
  })
  admin = postgres(pg.url, { max: 2, onnotice: () => {} })
})
beforeEach(() => right())
afterAll(async () => {
  await api.close()
  proxy.close()
  await admin.end()
  await pooler?.stop()
  await pg.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

let count = 0
const create = (key?: string) => {
  count++
  const user = { username: `user${count}`, email: `user${count}@example.com` }
  const headers = { 'content-type': 'application/json', ...(key && { 'idempotency-key': key }) }
  return api.request('POST', '/users', user, headers)
}

/** Sends it and says how long the answer took. */
async function timed<T>(what: Promise<T>) {
  const start = performance.now()
  return { answer: await what, ms: performance.now() - start }
}

/** Waits until reads, writes and readiness are right again, and says how long that took. */
async function right(): Promise<number> {
  const start = performance.now()
  for (;;) {
    const answers = await Promise.all([api.request('GET', '/readyz'), api.request('GET', '/users'), create()])
    if (answers.every(({ status }) => status < 300)) return performance.now() - start
    if (performance.now() - start > 15_000) throw new Error(JSON.stringify(answers.map(({ text }) => text)))
    await sleep(50)
  }
}
/** The pooler's own pause before it connects again comes on top. */
const RECOVERY_MS = 2000 + SLACK_MS + (pooled ? 2000 : 0)

/** The connections of the service. A pooler gives them the service's role at once, its name only with a statement. */
const OURS = `from pg_stat_activity where usename = '${role.user}'`
const cutAll = () => admin.unsafe(`select pg_terminate_backend(pid) ${OURS}`)

/** Waits until a statement of the service waits for a lock, and says how many do. */
async function lockWaiters(): Promise<number> {
  for (let i = 0; i < 1000; i++) {
    const rows = await admin.unsafe(`select ${OURS} and wait_event_type = 'Lock'`)
    if (rows.length > 0) return rows.length
    await sleep(5)
  }
  throw new Error('Nothing waits for a lock.')
}

/**
 * Reads and writes without pause until it is stopped; then says what they were answered. `settled` waits for those that
 * are under way now.
 */
function load(clients = 8) {
  let running = true
  const statuses = { read: new Map<number, number>(), write: new Map<number, number>() }
  const created: { id: number; username: string }[] = []
  let slowest = 0
  const underWay: Promise<unknown>[] = []
  const tally = (map: Map<number, number>, status: number) => map.set(status, (map.get(status) ?? 0) + 1)
  const done = Promise.all(
    Array.from({ length: clients }, async (_, i) => {
      while (running) {
        const request = timed(i % 2 === 0 ? api.request('GET', '/users?limit=2') : create())
        underWay[i] = request
        const { answer, ms } = await request
        slowest = Math.max(slowest, ms)
        tally(i % 2 === 0 ? statuses.read : statuses.write, answer.status)
        if (answer.status === 201) created.push(answer.body)
        if (answer.status === 503) await sleep(20)
      }
    }),
  )
  async function stop() {
    running = false
    await done
    return { read: [...statuses.read.keys()].sort(), write: [...statuses.write.keys()].sort(), created, slowest }
  }
  return Object.assign(stop, { settled: () => Promise.all(underWay) })
}

/** Every user that was answered 201 is there, once. */
async function expectAllThere(created: { id: number; username: string }[]) {
  const rows = await admin`select id::int, username from users where username = any(${created.map((u) => u.username)})`
  expect(rows.map(({ id }) => id).sort()).toEqual(created.map(({ id }) => id).sort())
}

const unavailable = async (path = '/users') => {
  const { answer, ms } = await timed(api.request('GET', path))
  expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
  expect(answer.text).not.toMatch(/postgres|sql|ECONN|127\.0\.0\.1/i)
  return ms
}

/** The processes of PostgreSQL: the postmaster and its children. */
const processes = () => [
  pg.process.pid as number,
  ...spawnSync('pgrep', ['-P', String(pg.process.pid)], { encoding: 'utf8' })
    .stdout.trim()
    .split('\n')
    .map(Number),
]

/** Starts it again where it was; its children may still hold the memory of one that was killed. */
async function restart() {
  const { port } = pg
  for (let i = 0; ; i++) {
    try {
      pg = await startPostgres({ settings, dataDir, port })
      return
    } catch (error) {
      if (i === 50) throw error
      await sleep(100)
    }
  }
}

test('the database stopped: 503 at once, alive, not ready; right again by itself when it is back', async () => {
  await pg.stop()
  await sleep(200)
  for (let i = 0; i < 5; i++) expect(await unavailable()).toBeLessThan(KNOWN_GONE_MS)
  const { answer, ms } = await timed(create())
  expect(answer.status).toBe(503)
  expect(ms).toBeLessThan(SLACK_MS)
  expect((await api.request('GET', '/livez')).status).toBe(200)
  await unavailable('/readyz')
  await restart()
  expect(await right()).toBeLessThan(RECOVERY_MS)
})

test('the postmaster killed under load: every 201 is there afterwards, once, and nothing but 2xx and 503 was said', async () => {
  const stop = load()
  await sleep(500)
  pg.process.kill('SIGKILL')
  await sleep(500)
  await restart()
  expect(await right()).toBeLessThan(RECOVERY_MS)
  const { read, write, created, slowest } = await stop()
  // A pooler may hold a request back until the database has returned: then none is refused.
  expect([read, write].map((statuses) => statuses.filter((status) => status !== 503))).toEqual([[200], [201]])
  expect(slowest).toBeLessThan(DEADLINE_MS + SLACK_MS)
  await expectAllThere(created)
})

describe('the database silent: each request is answered 503 within its deadline, and right again when it speaks', () => {
  const outages = {
    'packets lost': { begin: () => proxy.silence(true), end: () => proxy.silence(false) },
    'processes stopped': {
      begin: () => spawnSync('kill', ['-STOP', ...processes().map(String)]),
      end: () => spawnSync('kill', ['-CONT', ...processes().map(String)]),
    },
  }
  test.each(Object.entries(outages))('%s', async (_, { begin, end }) => {
    begin()
    const requests = [
      ...Array.from({ length: 10 }, () => api.request('GET', '/users')),
      ...Array.from({ length: 20 }, () => create()),
      api.request('PUT', '/users/1', { username: 'a', email: 'a@example.com' }),
    ]
    const answers = await Promise.all(requests.map(timed))
    for (const { answer, ms } of answers) {
      expect(answer.status).toBe(503)
      expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
    }
    // Nor do those who come one by one, while the first still wait.
    const stream = await Promise.all(
      Array.from({ length: 15 }, async (_, i) => {
        await sleep(i * 100)
        return timed(create())
      }),
    )
    for (const { answer, ms } of stream) {
      expect(answer.status).toBe(503)
      expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
    }
    // Once it is known, nobody waits.
    expect(await unavailable()).toBeLessThan(SLACK_MS / 2)
    await unavailable('/readyz')
    expect((await api.request('GET', '/livez')).status).toBe(200)
    end()
    expect(await right()).toBeLessThan(RECOVERY_MS)
  })
})

test('connections cut: reads are answered, for they are tried again', { retry: 3 }, async () => {
  const stop = load()
  for (let i = 0; i < 5; i++) {
    await right()
    // A read is tried again, but not for ever: it must not be cut at each try.
    await stop.settled()
    proxy.cut()
  }
  const { read, write, created } = await stop()
  expect(read).toEqual([200])
  expect(write.filter((status) => status !== 503)).toEqual([201])
  await expectAllThere(created)
})

test('backends terminated: reads are answered; a write may be 503, and is safe to repeat with its key', {
  retry: 3,
}, async () => {
  const stop = load()
  for (let i = 0; i < 5; i++) {
    await right()
    await stop.settled()
    await cutAll()
  }
  const { read, write, created } = await stop()
  expect(read).toEqual([200])
  expect(write.filter((status) => status !== 503)).toEqual([201])
  await expectAllThere(created)
})

test('a request has one deadline for all its statements, however late each is answered', async () => {
  const deadlineMs = 4000
  const slow = await startProxy(pooler?.port ?? pg.port)
  const patient = await startApi({ DATABASE_URL: urlAt(slow.port), DEADLINE_MS: String(deadlineMs) })
  onTestFinished(async () => {
    slow.delay(0)
    await patient.close()
    slow.close()
  })
  const { id, username } = (await create()).body
  const user = { username, email: 'another@example.com' }
  const change = (headers: Record<string, string>) =>
    patient.request('PUT', `/users/${id}`, user, { 'content-type': 'application/json', ...headers })
  // Each takes two statements.
  const requests = [
    () => patient.request('POST', '/users', user),
    () => change({ 'if-match': '"7"' }),
    () => change({ 'if-none-match': '"7"' }),
  ]
  for (const request of requests) await request()
  slow.delay(0.8 * deadlineMs)
  for (const { answer, ms } of await Promise.all(requests.map((request) => timed(request())))) {
    expect(answer.status).toBe(503)
    expect(ms).toBeLessThan(deadlineMs + SLACK_MS)
  }
})

test('a write that was lost on its way is made once, however often it is repeated with its key', async () => {
  const user = { username: 'once', email: 'once@example.com' }
  const post = () =>
    api.request('POST', '/users', user, { 'content-type': 'application/json', 'idempotency-key': 'once' })
  // The row's lock holds the insert until its connection is cut; the statement itself may go on in the server.
  await admin.begin(async (transaction) => {
    await transaction`insert into users (username, email) values (${user.username}, ${user.email})`
    const waiting = post()
    await lockWaiters()
    proxy.cut()
    const { status, body } = await waiting
    expect([status, body.detail]).toEqual([503, expect.stringContaining('may have been made or not')])
    await transaction`delete from users where username = ${user.username}`
  })
  await right()
  const [first, second] = [await post(), await post()]
  expect([first.status, second.text]).toEqual([201, first.text])
  await expectAllThere([first.body])
})

test('no connection left (53300): 503, and right again by itself', async () => {
  const others = Array.from({ length: settings.max_connections }, () =>
    postgres(pg.url, { max: 1, max_lifetime: null, onnotice: () => {} }),
  )
  onTestFinished(async () => void (await Promise.all(others.map((sql) => sql.end({ timeout: 1 })))))
  // Ours come back as fast as the others come: until every place is taken, and none by ours.
  for (let places = { all: 0, ours: 0 }; places.all < settings.max_connections || places.ours > 0; ) {
    await cutAll()
    await Promise.allSettled(others.map((sql) => sql`select 1`))
    await sleep(100)
    const [row] = await admin<(typeof places)[]>`
      select count(*)::int as all, (count(*) filter (where usename = ${role.user}))::int as ours
      from pg_stat_activity where backend_type = 'client backend'`
    if (row) places = row
  }
  expect(await unavailable()).toBeLessThan(SLACK_MS)
  expect((await create()).status).toBe(503)
  await Promise.all(others.map((sql) => sql.end({ timeout: 1 })))
  expect(await right()).toBeLessThan(RECOVERY_MS)
})

test('the disk full (53100): writes are 503, reads go on, and right again by itself', async () => {
  await admin.unsafe(`
    create function full_disk() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
    create trigger full_disk before insert or update on users execute function full_disk()`)
  const { status, headers, text } = await create()
  expect([status, headers.get('retry-after')]).toEqual([503, '1'])
  expect(text).not.toContain('space')
  expect((await api.request('GET', '/users')).status).toBe(200)
  await admin.unsafe('drop trigger full_disk on users; drop function full_disk')
  expect(await right()).toBeLessThan(RECOVERY_MS)
})

test('commits that wait for a standby which is away: few are stuck, other writes are 503 at once, reads go on', async () => {
  const standby = async (names: string) => {
    await admin.unsafe(`alter system set synchronous_standby_names = '${names}'`)
    await admin`select pg_reload_conf()`
    await expect.poll(() => admin`show synchronous_standby_names`).toEqual([{ synchronous_standby_names: names }])
  }
  const stuck = async () => (await admin`select from pg_stat_activity where wait_event = 'SyncRep'`).length
  const { id } = (await create()).body
  api.told.splice(0)
  await standby('nobody')
  onTestFinished(() => standby(''))
  const reads = new Set<number>()
  const writes = Array.from({ length: 24 }, async () => {
    for (let i = 0; i < 4; i++) {
      const { answer, ms } = await timed(create())
      expect(answer.status).toBe(503)
      expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
      reads.add((await api.request('GET', `/users/${id}`)).status)
      reads.add((await api.request('GET', '/users?limit=1')).status)
      expect(await stuck()).toBeLessThanOrEqual(CONNECTIONS - 2)
    }
  })
  await Promise.all(writes)
  expect([...reads]).toEqual([200])
  // As many as writes may have: the others are not even sent.
  expect(await stuck()).toBeGreaterThan(0)
  while ((await stuck()) < CONNECTIONS - 2) await create()
  await expect.poll(async () => (await timed(create())).ms).toBeLessThan(DEADLINE_MS / 2)
  expect((await api.request('GET', '/readyz')).status).toBe(200)
  await standby('')
  await right()
  expect(api.told).toEqual([
    ['database writes', 'it did not answer in time'],
    ['database writes', undefined],
  ])
})

test('tables that lack what this release needs: /readyz is 503 until `migrate` has run', async () => {
  expect((await api.request('GET', '/readyz')).status).toBe(200)
  await admin`alter table users rename column version to later`
  await expect.poll(async () => (await api.request('GET', '/readyz')).status).toBe(503)
  expect((await api.request('GET', '/livez')).status).toBe(200)
  await admin`alter table users rename column later to version`
  await expect.poll(async () => (await api.request('GET', '/readyz')).status).toBe(200)
  await right()
})

test('more requests than the database can answer: /readyz stays 200', async () => {
  // Every connection for reads and writes waits for this lock.
  const locked = await admin.begin(async (transaction) => {
    await transaction`lock table users in access exclusive mode`
    const requests = Array.from({ length: 40 }, (_, i) =>
      i % 2 === 0 ? create() : api.request('GET', `/users?username=user${i}`),
    )
    await expect.poll(lockWaiters).toBe(CONNECTIONS)
    for (let i = 0; i < 5; i++) expect((await api.request('GET', '/readyz')).status).toBe(200)
    return requests
  })
  await Promise.all(locked)
})

test('new connections refused, as after a change of the password: the open ones carry every write', async () => {
  const users = await Promise.all(Array.from({ length: 6 }, () => create()))
  const other = postgres(new URL('/template1', pg.url).href, { max: 1 })
  const accept = (on: boolean) => other.unsafe(`alter database postgres allow_connections ${on}`)
  onTestFinished(async () => {
    await accept(true)
    await other.end()
  })
  await accept(false)
  const changes = users.map(({ body }) => api.request('PATCH', `/users/${body.id}`, { username: `new${body.id}` }))
  expect((await Promise.all(changes)).map(({ status }) => status)).toEqual(Array(6).fill(200))
  expect((await create()).status).toBe(201)
})

test('read-only after a failover (25006): writes are 503, reads go on, and right again by itself', async () => {
  const demote = (on: boolean) =>
    admin.begin('read write', (transaction) =>
      transaction.unsafe(`alter database postgres set default_transaction_read_only = ${on ? 'on' : 'off'}`),
    )
  await demote(true)
  onTestFinished(async () => void (await demote(false)))
  await cutAll()
  await sleep(300)
  for (let i = 0; i < 3; i++) expect((await create()).status).toBe(503)
  expect((await api.request('GET', '/users')).status).toBe(200)
  await demote(false)
  // To leave a demoted primary is the pooler's task, or its operator's.
  await pooler?.reconnect()
  // Nothing ends the old connections: they are left because they are read-only.
  expect(await right()).toBeLessThan(RECOVERY_MS)
})

test('a row locked for long: that change times out, the others go on', async () => {
  const [locked, free] = [(await create()).body, (await create()).body]
  await admin.begin(async (transaction) => {
    await transaction`select 1 from users where id = ${locked.id} for update`
    const waiting = timed(api.request('PATCH', `/users/${locked.id}`, { username: 'changed' }))
    await lockWaiters()
    const other = await timed(api.request('PATCH', `/users/${free.id}`, { username: 'changed' }))
    expect(other.answer.status).toBe(200)
    expect(other.ms).toBeLessThan(DEADLINE_MS)
    expect((await api.request('GET', `/users/${locked.id}`)).status).toBe(200)
    expect((await create()).status).toBe(201)
    const { answer, ms } = await waiting
    expect(answer.status).toBe(503)
    expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
  })
})

test('many changes of a locked row hold one connection, and fail nobody else, also past their deadlines', async () => {
  const [locked, free] = [(await create()).body, (await create()).body]
  await admin.begin(async (transaction) => {
    await transaction`select 1 from users where id = ${locked.id} for update`
    const change = () => timed(api.request('PATCH', `/users/${locked.id}`, { username: 'late' }))
    const waiting = Promise.all(Array.from({ length: 12 }, change))
    expect(await lockWaiters()).toBe(1)
    const until = performance.now() + 2 * DEADLINE_MS
    for (let i = 0; performance.now() < until; i++) {
      expect((await api.request('PATCH', `/users/${free.id}`, { username: `free${i}` })).status).toBe(200)
      expect((await create()).status).toBe(201)
      expect((await api.request('GET', `/users/${locked.id}`)).status).toBe(200)
    }
    for (const { answer, ms } of await waiting) {
      expect(answer.status).toBe(503)
      expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
    }
  })
})

test('users whose names another transaction holds fail alone: those beside them are created', async () => {
  await admin.begin(async (transaction) => {
    const held = ['held1', 'held2', 'held3'].map((username) => ({ username, email: `${username}@example.com` }))
    await transaction`insert into users ${transaction(held)}`
    const blocked = held.map((user) => timed(api.request('POST', '/users', user)))
    const beside = Array.from({ length: 20 }, () => timed(create()))
    await lockWaiters()
    const after = Array.from({ length: 20 }, () => timed(create()))
    for (const { answer, ms } of await Promise.all([...beside, ...after])) {
      expect(answer.status).toBe(201)
      expect(ms).toBeLessThan(DEADLINE_MS + SLACK_MS)
    }
    for (const { answer } of await Promise.all(blocked)) expect(answer.status).toBe(503)
  })
})

test('a migration that adds a column under load causes no error', async () => {
  const stop = load()
  for (let i = 0; i < 5; i++) {
    await sleep(100)
    await admin.unsafe(`alter table users add column note${i} text default 'x'`)
  }
  const { read, write } = await stop()
  expect([read, write]).toEqual([[200], [201]])
})

test("a migration that changes columns' types under load gives nobody another user's answer", async () => {
  const users = (await Promise.all(Array.from({ length: 50 }, () => create()))).map(({ body }) => body)
  const wrong: string[] = []
  let right = 0
  let running = true
  const clients = Array.from({ length: 24 }, async (_, i) => {
    for (let j = i; running; j += 7) {
      const user = users[j % users.length]
      const [one, found] = await Promise.all([
        api.request('GET', `/users/${user.id}`),
        api.request('GET', `/users?username=${user.username}`),
      ])
      if (one.status !== 503 && one.body.id !== user.id) wrong.push(one.text)
      if (found.status !== 503 && found.body.users?.[0]?.id !== user.id) wrong.push(found.text)
      if (one.status === 200) right++
    }
  })
  for (let i = 0; i < 6; i++) {
    const before = right
    await vi.waitFor(() => expect(right).toBeGreaterThan(before + 10), { timeout: 30_000 })
    await admin.unsafe(`alter table users alter column username type ${i % 2 === 0 ? 'varchar(80)' : 'text'}`)
    await admin.unsafe(`alter table users alter column created_at type timestamptz(${i % 2 === 0 ? 6 : 3})`)
  }
  running = false
  await Promise.all(clients)
  expect(wrong).toEqual([])
  // Behind a pooler each of its connections finds that for itself, and a change may come to one after the other.
  for (const type of ['varchar(80)', 'text', 'varchar(90)']) {
    const change = (email: string) =>
      Promise.all(users.map(({ id }) => api.request('PATCH', `/users/${id}`, { email: `${id}${email}` })))
    await change('@before.example')
    await admin.unsafe(`alter table users alter column username type ${type}`)
    expect(new Set((await change('@after.example')).map(({ status }) => status))).toEqual(new Set([200]))
  }
  expect((await create()).status).toBe(201)
})

test('one statement and one round trip a request, prepared by name', async () => {
  // What its connections keep of the types before costs round trips.
  await pooler?.reconnect()
  const sent = async (round: number) => {
    const { id } = (await create()).body
    const requests = [
      ['GET', `/users/${id}`],
      ['GET', '/users'],
      ['GET', `/users?username=user${count}`],
      ['PUT', `/users/${id}`, { username: `put${round}`, email: `put${round}@example.com` }],
      ['PATCH', `/users/${id}`, { username: `patched${round}` }],
      ['PATCH', `/users/${id}`, {}],
      ['POST', '/users', { username: `posted${round}`, email: `posted${round}@example.com` }],
      ['DELETE', `/users/${id}`],
    ] as const
    const messages: Record<string, string> = {}
    proxy.sent()
    for (const [method, path, body] of requests) {
      expect((await api.request(method, path, body)).status).toBeLessThan(300)
      messages[`${method} ${path.replace(`${id}`, ':id')} ${Object.keys(body ?? {})}`] = proxy.sent()
    }
    return messages
  }
  // Each connection prepares a statement at its first use, by Parse and Describe. Then there is Bind, Execute, Sync.
  let round = 0
  await vi.waitFor(async () => expect([...new Set(Object.values(await sent(++round)))]).toEqual(['BES']), {
    timeout: 10_000,
  })
  // Those of one moment share statements; on a busy machine they come in several moments.
  await Promise.all(Array.from({ length: 40 }, () => create()))
  expect(proxy.sent().replaceAll(/[^E]/g, '').length).toBeLessThan(20)
})

test('a stream that loses the database ends with a problem as its last line', async () => {
  await admin`insert into users (username, email) select 'many' || i, 'many' || i || '@example.com' from generate_series(1, 20000) i`
  const response = await fetch(`${api.url}/users`, { headers: { accept: 'application/x-ndjson' } })
  expect(response.status).toBe(200)
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  let text = new TextDecoder().decode((await reader.read()).value)
  proxy.silence(true)
  for (;;) {
    const { value, done } = await reader.read()
    if (done) break
    text += new TextDecoder().decode(value)
  }
  const last = JSON.parse(text.trimEnd().split('\n').at(-1) as string)
  expect(last).toMatchObject({ status: 503, instance: '/users', title: 'Service Unavailable' })
  proxy.silence(false)
  expect(await right()).toBeLessThan(RECOVERY_MS)
})
