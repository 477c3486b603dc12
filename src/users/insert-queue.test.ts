import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { createDatabase, type Database } from '../db/client.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { createInsertQueue } from './insert-queue.ts'
import { createUserStore } from './store.ts'

let database: TestDatabase
let db: Database
/** The parameters of the statements that were written. */
let written: unknown[][]
let counted: Database
beforeAll(async () => {
  database = await createTestDatabase()
  const address = addressOf(database.url)
  db = createDatabase({ address, applicationName: 'test', deadlineMs: 5000, writeConnections: 4 })
  counted = {
    ...db,
    write(text, parameters, since) {
      written.push([...parameters])
      return db.write(text, parameters, since)
    },
  }
})
beforeEach(async () => {
  written = []
  await database.sql`truncate users`
})
afterAll(async () => {
  await db.close(1000)
  await database.drop()
})

const row = (name: string, key: string | null = null) => ({
  username: name,
  email: `${name}@example.com`,
  key,
  hash: key && `hash of ${name}`,
})
const first = async (text: string) => {
  const [found] = await database.sql.unsafe(text)
  return found
}

describe('gathered inserts', () => {
  test('a lone row goes at once, in one statement', async () => {
    const queue = createInsertQueue(counted)
    const added = queue.add(row('alone'))
    await setImmediate()
    expect(written).toHaveLength(1)
    expect(await added).toMatchObject({ id: expect.any(Number) })
    expect(written).toHaveLength(1)
  })

  test('rows that come at the same moment share a statement, and each caller gets its own id', async () => {
    const queue = createInsertQueue(counted)
    const names = Array.from({ length: 500 }, (_, i) => `same${i}`)
    const inserted = await Promise.all(names.map((name) => queue.add(row(name))))
    expect(written.length).toBeLessThanOrEqual(4)
    const stored = await database.sql`select id::int, username from users`
    const ids = new Map(stored.map(({ username, id }) => [username, id]))
    expect(names.map((name) => ids.get(name))).toEqual(inserted.map((answer) => answer?.id))
  })

  test('a conflict leaves its neighbours alone', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const queue = createInsertQueue(counted)
    await queue.add(row('taken'))
    written = []
    const add = (...names: string[]) => Promise.all(names.map((name) => queue.add(row(name))))
    const inserted = async (...names: string[]) => (await add(...names)).map((answer) => answer !== undefined)
    // The first conflict fails its statement, and its rows go again; then, for a second, more of them are left out.
    expect(await inserted('new1', 'TAKEN', 'new2')).toEqual([true, false, true])
    expect(written).toHaveLength(2)
    expect(await inserted('taken', 'new3', 'NEW1')).toEqual([false, true, false])
    expect(written).toHaveLength(3)
    vi.advanceTimersByTime(1001)
    expect(await inserted('new4', 'new5')).toEqual([true, true])
    expect(await inserted('new6', 'new4')).toEqual([true, false])
    expect(written).toHaveLength(6)
    expect(await first('select count(*)::int as n from users')).toEqual({ n: 7 })
  })

  test('a row that the database refuses is the only one that fails', async () => {
    const queue = createInsertQueue(counted)
    const bad = { ...row('bad'), email: 'no at sign' }
    const answers = await Promise.allSettled([queue.add(row('good1')), queue.add(bad), queue.add(row('good2'))])
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await first('select count(*)::int as n from users')).toEqual({ n: 2 })
  })

  test('of rows that share a field in the same moment the first wins', async () => {
    const queue = createInsertQueue(counted)
    const z = row('zed')
    const answers = await Promise.all([
      queue.add(z),
      queue.add({ ...row('abc'), email: z.email.toUpperCase() }),
      queue.add({ ...row('other'), username: 'ZED' }),
    ])
    expect(answers.map((answer) => answer !== undefined)).toEqual([true, false, false])
  })

  test('a row is answered only after its commit', async () => {
    const queue = createInsertQueue(db)
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const answer = await queue.add(row(`commit${i}`))
        const [found] = await database.sql`select 1 from users where id = ${answer?.id as number}`
        expect(found).toBeDefined()
      }),
    )
  })

  test('two queues that are given the same keys in opposite orders take them in one, and both end', async () => {
    const [one, other] = [createInsertQueue(counted), createInsertQueue(counted)]
    for (let round = 0; round < 20; round++) {
      const names = Array.from({ length: 50 }, (_, i) => `r${round}n${i}`)
      const answers = await Promise.all([
        ...names.map((name) => one.add(row(name))),
        ...names.toReversed().map((name) => other.add(row(name))),
      ])
      expect(answers.filter((answer) => answer !== undefined)).toHaveLength(names.length)
    }
    // Whether two orders would meet in a deadlock is a matter of luck.
    for (const [usernames] of written) {
      const names = String(usernames).slice(1, -1).split(',')
      expect(names).toEqual(names.toSorted())
    }
  })

  test('when the connection is lost every waiting row fails, and none is sent again', async () => {
    let sent = 0
    const losing: Database = {
      ...db,
      async write() {
        sent++
        throw new DatabaseUnavailable('gone', 'lost')
      },
    }
    const queue = createInsertQueue(losing)
    const answers = await Promise.allSettled(Array.from({ length: 30 }, (_, i) => queue.add(row(`lost${i}`))))
    expect(answers.every((a) => a.status === 'rejected' && a.reason instanceof DatabaseUnavailable)).toBe(true)
    expect(sent).toBe(1)
  })
})

test('any mix of creates, duplicates and repeats at one moment is answered as if it came one by one', async () => {
  const operation = fc.record({
    username: fc.constantFrom('ann', 'ANN', 'bob', 'cem', 'dea', 'e"\\{,}', 'NULL'),
    email: fc.constantFrom('a@x.io', 'A@x.io', 'b@x.io', 'c@x.io', 'd@x.io', 'e@x.io'),
    key: fc.option(fc.constantFrom('k1', 'k2', 'k3'), { nil: undefined, freq: 2 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), async (operations) => {
      await database.sql`truncate users`
      const store = createUserStore(db)
      const answers = await Promise.all(operations.map(({ key, ...user }) => store.create(user, key)))

      // The model: users and keys in plain maps, one operation after the other.
      const users: { operation: (typeof operations)[number]; answer: (typeof answers)[number] }[] = []
      for (const [i, operation] of operations.entries()) {
        const answer = answers[i] as (typeof answers)[number]
        const same = (field: 'username' | 'email') =>
          users.some((user) => user.operation[field].toLowerCase() === operation[field].toLowerCase())
        const before = operation.key && users.find((user) => user.operation.key === operation.key)
        if (before) {
          const { username, email } = before.operation
          const repeats = username === operation.username && email === operation.email
          expect(answer).toEqual(repeats ? before.answer : { outcome: 'key-reused' })
        } else if (same('username') || same('email')) {
          const fields = (['username', 'email'] as const).filter(same)
          // They came at one moment: another may have had the key before this one's conflict was looked into.
          const keyTaken = operations.some(
            (o, j) => o.key && o.key === operation.key && answers[j]?.outcome === 'created',
          )
          if (!(keyTaken && answer.outcome === 'key-reused')) {
            expect(answer).toEqual({ outcome: 'conflict', fields: expect.arrayContaining(fields) })
          }
        } else {
          expect(answer).toMatchObject({
            outcome: 'created',
            version: 1,
            user: { username: operation.username, email: operation.email },
          })
          users.push({ operation, answer })
        }
      }
      const [count] = await database.sql`select count(*)::int as n from users`
      expect(count?.n).toBe(users.length)
    }),
    { numRuns: 150 },
  )
})
