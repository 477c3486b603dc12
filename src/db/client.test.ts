import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { createDatabase, type Database } from './client.ts'
import type { DatabaseUnavailable } from './unavailable.ts'

const DEADLINE_MS = 2000

let database: TestDatabase
let db: Database
const failures: DatabaseUnavailable[] = []
beforeAll(async () => {
  database = await createTestDatabase()
  db = createDatabase({
    address: addressOf(database.url),
    applicationName: 'test',
    deadlineMs: DEADLINE_MS,
    writeConnections: 2,
    onChange: (failure) => {
      if (failure) failures.push(failure)
    },
  })
  await db.opened()
})
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
  await expect(db.write('select pg_sleep($1)', [5], late)).rejects.toMatchObject({ reached: 'lost' })
  await db.read('select 1', [])
  await sleep(300)
  expect(failures).toEqual([])
  const kept = (await backends()).filter((pid) => before.includes(pid))
  expect(kept.length).toBeGreaterThanOrEqual(before.length - 1)
})
