import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { createDatabase, type Database } from './client.ts'

const DEADLINE_MS = 2000

let database: TestDatabase
let db: Database
/** What was told of reads and writes since the test began. */
const told: [string, string | undefined][] = []
beforeAll(async () => {
  database = await createTestDatabase()
  db = createDatabase({
    address: addressOf(database.url),
    applicationName: 'test',
    deadlineMs: DEADLINE_MS,
    writeConnections: 2,
    onChange: (of, failure) => told.push([of, failure?.message]),
  })
  await db.opened()
})
beforeEach(() => told.splice(0))
afterAll(async () => {
  await db.close(0)
  await database.drop()
})

const backends = async () => {
  const rows = await database.sql`
    select pid from pg_stat_activity where application_name = 'test' and datname = current_database() order by pid`
  return rows.map(({ pid }) => pid as number)
}

test('a write that got its turn shortly before its deadline is not sent', async () => {
  const insert = "insert into users (username, email) values ('late', 'late@example.com')"
  const late = performance.now() - 0.85 * DEADLINE_MS
  await expect(db.write(insert, [], late)).rejects.toMatchObject({ reached: 'refused' })
  expect(await database.sql`select from users where username = 'late'`).toHaveLength(0)
})

test('a write that is slow, and was sent late, is given up alone: the other connections stay', async () => {
  await Promise.all([db.write('select 1', []), db.write('select 1', [])])
  const before = await backends()
  const late = performance.now() - 0.6 * DEADLINE_MS
  const slow = db.write('select pg_sleep($1)', [5], late)
  await expect(slow).rejects.toMatchObject({ reached: 'lost' })
  await db.read('select 1', [])
  const kept = (await backends()).filter((pid) => before.includes(pid))
  expect(kept.length).toBeGreaterThanOrEqual(before.length - 1)
  await db.write('select 1', [])
  expect(told).toEqual([
    ['writes', 'it did not answer in time'],
    ['writes', undefined],
  ])
})

test('writes that fail alone are told of once, and once when they succeed again', async () => {
  const refuse = "do $$ begin raise exception 'no space left' using errcode = '53100'; end $$"
  for (let i = 0; i < 3; i++) await expect(db.write(refuse, [])).rejects.toMatchObject({ code: '53100' })
  for (let i = 0; i < 3; i++) await db.write('select 1', [])
  expect(told).toEqual([
    ['writes', 'no space left'],
    ['writes', undefined],
  ])
})

test('a read that is slow is given up alone, and those beside it are answered', async () => {
  const [pid] = (await db.read('select pg_backend_pid()', []))[0] ?? []
  // Each is shorter than the time that PostgreSQL gives a statement; the second waits for the first.
  const answers = await Promise.allSettled([
    db.read('select pg_sleep(0.7 * $1)', [DEADLINE_MS / 1000]),
    db.read('select pg_sleep(0.7 * $1)', [DEADLINE_MS / 1000]),
  ])
  expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
  expect((await db.read('select pg_backend_pid()', []))[0]).toEqual([pid])
  expect(told).toEqual([])
})

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as (options: { type: 'minor' | 'major' }) => void

test('reading makes no buffers that wait for a collection', async () => {
  const [queries, bytes] = [50, 20_000]
  const read = () => db.read("select repeat('x', $1::int)", [bytes])
  await read()
  collect({ type: 'major' })
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < queries; i++) await read()
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan((queries * bytes) / 4)
})

test('what was answered is forgotten at the next collection of young objects', async () => {
  const [queries, bytes] = [300, 20_000]
  collect({ type: 'major' })
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < queries; i++) {
    await db.read("select repeat('x', $1::int)", [bytes])
    if (i % 20 === 0) collect({ type: 'minor' })
  }
  for (let i = 0; i < 2; i++) collect({ type: 'minor' })
  expect(process.memoryUsage().heapUsed - before).toBeLessThan((queries * bytes) / 4)
})
