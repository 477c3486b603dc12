import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { createDatabase, type Database } from '../db/client.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { createGetQueue } from './get-queue.ts'

const USERS = 300

let database: TestDatabase
let db: Database
let statements = 0
let counted: Database
beforeAll(async () => {
  database = await createTestDatabase()
  await database.sql`insert into users (username, email) select 'user' || i, 'user' || i || '@example.com' from generate_series(1, ${USERS}::int) i`
  db = createDatabase({
    address: addressOf(database.url),
    applicationName: 'test',
    deadlineMs: 5000,
    writeConnections: 1,
  })
  counted = {
    ...db,
    read(text, parameters) {
      statements++
      return db.read(text, parameters)
    },
  }
})
beforeEach(() => {
  statements = 0
})
afterAll(async () => {
  await db.close(1000)
  await database.drop()
})

test('those who ask in one turn share a statement, and each gets the user of its id', async () => {
  const { get } = createGetQueue(counted)
  const ids = [3, 1, 2, 3, 999_999, 1, Number.MAX_SAFE_INTEGER]
  const found = await Promise.all(ids.map(get))
  expect(found.map((stored) => stored?.user.username)).toEqual([
    'user3',
    'user1',
    'user2',
    'user3',
    undefined,
    'user1',
    undefined,
  ])
  expect(statements).toBe(1)
})

test('asks for at most 100 ids in one statement, and for each', async () => {
  const { get } = createGetQueue(counted)
  const ids = Array.from({ length: USERS }, (_, i) => i + 1)
  const found = await Promise.all(ids.map(get))
  expect(found.map((stored) => stored?.user.id)).toEqual(ids)
  expect(statements).toBe(USERS / 100)
})

test('who asks after a change sees it, whoever asked before', async () => {
  const { get } = createGetQueue(db)
  const before = get(5)
  await database.sql`update users set username = 'changed', version = 2 where id = 5`
  const [after] = await Promise.all([get(5), get(6), before])
  expect(after).toMatchObject({ version: 2, user: { username: 'changed' } })
})

test('a failure reaches everyone who asked, and nobody after', async () => {
  let fail = true
  const { get } = createGetQueue({
    ...db,
    read: (...statement) => (fail ? Promise.reject(new DatabaseUnavailable('gone', 'unsent')) : db.read(...statement)),
  })
  const answers = await Promise.allSettled([get(1), get(2), get(2)])
  expect(answers.every((a) => a.status === 'rejected' && a.reason instanceof DatabaseUnavailable)).toBe(true)
  fail = false
  expect(await get(1)).toBeDefined()
})
