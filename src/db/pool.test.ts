import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { addressOf, createTestPool, type TestPool } from '../../test/database.ts'
import { startProxyTo } from '../../test/proxy.ts'
import { createPool } from './pool.ts'

const DEADLINE_MS = 2000

let db: TestPool
/** What the pool told of the database and of writes since the test began. */
let told: [string, string | undefined][]
beforeEach(async () => {
  told = []
  db = await createTestPool({ deadlineMs: DEADLINE_MS, onChange: (of, failure) => told.push([of, failure?.message]) })
})
afterEach(() => db.close())

const insert = (name: string) =>
  ['insert into users (username, email) values ($1, $2) returning id', [name, `${name}@example.com`]] as const

/** Makes users that a transaction locks, and gives the function that ends it. */
async function lockUsers(count: number) {
  await db.sql`insert into users (username, email) select 'locked' || i, i || '@example.com' from generate_series(1, ${count}) i`
  const locked = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  const transaction = db.sql.begin(async (sql) => {
    await sql`select 1 from users for update`
    locked.resolve()
    await release.promise
  })
  await locked.promise
  return async () => {
    release.resolve()
    await transaction
  }
}

const lockWaiters = async () => {
  const rows = await db.sql`
    select from pg_stat_activity where datname = current_database() and application_name = 'test' and wait_event_type = 'Lock'`
  return rows.length
}

describe('parameters and answers', () => {
  test.each([undefined, new Date(), 1n, {}, ['a'], Buffer.from('a')])(
    'a parameter that cannot be sent as it is (%s) is an error of its caller, and five beside it get their own rows',
    async (value) => {
      const ask = (parameter: unknown) =>
        // @ts-expect-error: such a parameter does not compile.
        db.read('select $1::text as value', [parameter])
      const answers = await Promise.allSettled([ask('a'), ask('b'), ask(value), ask('c'), ask('d'), ask(null)])
      expect(answers.map((answer) => (answer.status === 'fulfilled' ? answer.value[0] : answer.reason.name))).toEqual([
        ['a'],
        ['b'],
        'TypeError',
        ['c'],
        ['d'],
        [null],
      ])
      expect(await ask('after')).toEqual([['after']])
      expect(told).toEqual([])
    },
  )

  test('an error after the first rows of a statement leaves nothing behind for the next', async () => {
    for (let i = 0; i < 10; i++) {
      // The third row fails when the first two have been sent.
      const rows = db.read("select 1 / (n - 3), repeat('x', 10000) from generate_series(1, 5) n")
      await expect(rows).rejects.toMatchObject({ code: '22012' })
      expect(await db.read('select n from generate_series(1, 3) n')).toEqual([[1], [2], [3]])
    }
  })

  test("a mistake in a statement's types is its caller's error at once, not an outage", async () => {
    const mistake = "insert into users (username, email, version) select 'a', 'a@b', unnest($1::text[])"
    await expect(db.write(mistake, ['{1}'])).rejects.toMatchObject({ name: 'PostgresError', code: '42804' })
    expect(told).toEqual([])
  })

  test('a statement that a migration made invalid is prepared again, on every connection', async () => {
    const read = () => db.read("select * from users where username = 'a'")
    await db.write(...insert('a'))
    await Promise.all(Array.from({ length: 20 }, read))
    await db.sql`alter table users add column note text default 'x'`
    const rows = (await Promise.all(Array.from({ length: 20 }, read))).map(([row]) => row?.at(-1))
    expect(rows).toEqual(Array(20).fill('x'))
  })
})

describe('which connections statements get', () => {
  test('nine locked rows do not stop a read', async () => {
    await db.close()
    // Locks time out only when long since all that can are waiting.
    db = await createTestPool({ deadlineMs: 60_000 })
    const unlock = await lockUsers(9)
    const changes = Array.from({ length: 9 }, (_, i) =>
      db.write('update users set version = 2 where username = $1 returning id', [`locked${i + 1}`]),
    )
    await expect.poll(lockWaiters, { timeout: 10_000 }).toBe(7)
    expect(await db.read('select count(*)::int from users')).toEqual([[9]])
    await unlock()
    expect(await Promise.all(changes)).toHaveLength(9)
  })

  test('there are never more than nine for reads and writes, and four for streams', async () => {
    const until = performance.now() + 60_000
    const asked = (['read', 'write', 'stream'] as const).flatMap((use) =>
      Array.from({ length: 20 }, () => db.query(use, 'select pg_backend_pid(), pg_sleep(0.05)', [], until)),
    )
    const pids = new Set((await Promise.all(asked)).map(([row]) => row?.[0]))
    expect(pids.size).toBeLessThanOrEqual(13)
    expect(await db.backends()).toHaveLength(pids.size)
  })

  test('those that are idle are closed, down to one', async () => {
    await Promise.all(Array.from({ length: 9 }, () => db.read('select pg_sleep(0.1)')))
    expect((await db.backends()).length).toBeGreaterThan(1)
    await expect.poll(async () => (await db.backends()).length, { timeout: 60_000 }).toBe(1)
    expect(await db.read('select 1')).toEqual([[1]])
  })
})

describe('deadlines', () => {
  test('a statement that got its turn too late is not sent', async () => {
    const late = db.query('write', ...insert('late'), performance.now() + 10)
    await expect(late).rejects.toMatchObject({ reached: 'unsent' })
    expect(await db.sql`select from users where username = 'late'`).toHaveLength(0)
  })

  test('a slow write is given up alone: its connection stays, and answers the next', async () => {
    const before = await db.backends()
    const slow = db.query('write', 'select pg_sleep(1.2)', [], performance.now() + 500)
    await expect(slow).rejects.toMatchObject({ reached: 'lost' })
    await sleep(1500)
    expect(await db.backends()).toEqual(expect.arrayContaining(before))
    await db.write('select 1')
  })

  test('closing does not wait for a silent connection that carries nothing', async () => {
    const { network, url } = await startProxyTo(db.url)
    onTestFinished(network.close)
    const pool = createPool({
      address: addressOf(url),
      applicationName: 'test',
      connections: 9,
      deadlineMs: DEADLINE_MS,
    })
    await pool.opened
    network.silence(true)
    // Longer than a test may take.
    await pool.close(600_000)
  })

  test('writes that were lost on the way, while the database answers, give their connections back', async () => {
    const { network, url } = await startProxyTo(db.url)
    onTestFinished(network.close)
    // Locks time out only when all writes are long since waiting.
    const options = { applicationName: 'test', connections: 9, deadlineMs: 20_000 }
    const pool = createPool({ ...options, address: addressOf(url) })
    onTestFinished(() => pool.close(0))
    await pool.opened
    const within = () => performance.now() + DEADLINE_MS
    const unlock = await lockUsers(7)
    const change = 'update users set version = 2 where username = $1'
    const writes = Array.from({ length: 7 }, (_, i) => pool.query('write', change, [`locked${i + 1}`], within()))
    const outcomes = Promise.allSettled(writes)
    await expect.poll(lockWaiters).toBe(7)
    network.forget()
    await unlock()
    expect((await outcomes).map(({ status }) => status)).toEqual(Array(7).fill('rejected'))
    await expect.poll(() => pool.query('write', ...insert('next'), within()).catch(() => undefined)).toHaveLength(1)
    expect(await pool.query('read', 'select count(*)::int from users', [], within())).toEqual([[8]])
  })

  test('writes that fail alone are told of once, and once when they succeed again', async () => {
    const refuse = "do $$ begin raise exception 'no space left' using errcode = '53100'; end $$"
    for (let i = 0; i < 3; i++) await expect(db.write(refuse)).rejects.toMatchObject({ code: '53100' })
    await db.read('select 1')
    for (let i = 0; i < 3; i++) await db.write('select 1')
    expect(told).toEqual([
      ['database writes', 'no space left'],
      ['database writes', undefined],
    ])
  })
})
