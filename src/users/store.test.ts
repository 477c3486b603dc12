import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createTestPool, type TestPool } from '../../test/database.ts'
import type { Pool, Use } from '../db/pool.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import type { Result } from '../resource.ts'
import { createUserStore, type StoredUser } from './store.ts'

let db: TestPool
/** The statements that were sent since the test began. */
let sent: { use: Use; text: string; parameters: readonly unknown[] }[]
let counted: Pool
beforeAll(async () => {
  db = await createTestPool()
  counted = {
    ...db,
    query(use, text, parameters, until) {
      sent.push({ use, text, parameters })
      return db.query(use, text, parameters, until)
    },
  }
})
beforeEach(async () => {
  sent = []
  await db.sql`truncate users restart identity`
})
afterAll(() => db.close())

const until = () => performance.now() + 5000
const user = (username: string) => ({ username, email: `${username}@example.com`, key: null, hash: null })
const written = () => sent.filter(({ use }) => use === 'write')

/** The user who was created, now or before with the same key. */
const rowOf = (answer: Result<StoredUser>) => ('row' in answer ? answer.row : 'id' in answer ? answer : undefined)
const idOf = (answer: Result<StoredUser>) => rowOf(answer)?.id

/** A store of its own that creates users by their names, and says which were created. */
function creator(pool: Pool = counted) {
  const store = createUserStore(pool)
  const create = (username: string) => store.create(user(username), until())
  const created = async (...names: string[]) =>
    (await Promise.all(names.map(create))).map((answer) => idOf(answer) !== undefined)
  return { store, create, created }
}

describe('gets', () => {
  beforeEach(async () => {
    await db.sql`insert into users (username, email) select 'user' || i, 'user' || i || '@example.com' from generate_series(1, 300) i`
  })

  test('those who ask in one turn share a statement, and each gets the user of its id', async () => {
    const { store } = creator()
    const ids = [3, 1, 2, 3, 999_999, 1, Number.MAX_SAFE_INTEGER]
    const found = await Promise.all(ids.map((id) => store.get(id, until())))
    const names = found.map((stored) => stored?.username)
    expect(names).toEqual(['user3', 'user1', 'user2', 'user3', undefined, 'user1', undefined])
    expect(sent).toHaveLength(1)
  })

  test('who asks after a change sees it, whoever asked before', async () => {
    const { store } = creator()
    const before = store.get(5, until())
    await db.sql`update users set username = 'changed', version = 2 where id = 5`
    const [after] = await Promise.all([store.get(5, until()), store.get(6, until()), before])
    expect(after).toMatchObject({ version: 2, username: 'changed' })
  })

  test('pages that are asked for in one turn share a statement, and each gets its own', async () => {
    const { store } = creator()
    const asked = [
      { after: 0, limit: 3 },
      { after: 299, limit: 3 },
      { after: 300, limit: 3 },
      { after: 10, limit: 1 },
    ]
    const pages = await Promise.all(asked.map((page) => store.list(page, until())))
    expect(pages.map((users) => users.map(({ id }) => id))).toEqual([[1, 2, 3], [300], [], [11]])
    expect(sent).toHaveLength(1)
  })

  test('a statement reads a bounded number of users, however many pages are asked for at once', async () => {
    const { store } = creator()
    await Promise.all(Array.from({ length: 8 }, () => store.list({ after: 0, limit: 1000 }, until())))
    for (const { parameters } of sent) expect(String(parameters[1]).split(',').length).toBeLessThanOrEqual(4)
  })
})

describe('gathered inserts', () => {
  test('a lone row goes at once, in one statement', async () => {
    const { create } = creator()
    const added = create('alone')
    await setImmediate()
    expect(sent).toHaveLength(1)
    expect(await added).toMatchObject({ version: 1, username: 'alone' })
    expect(sent).toHaveLength(1)
  })

  test('rows that come at the same moment share a statement, and each caller gets its own id', async () => {
    const { create } = creator()
    const names = Array.from({ length: 500 }, (_, i) => `same${i}`)
    const answers = await Promise.all(names.map(create))
    expect(sent.length).toBeLessThanOrEqual(4)
    const stored = await db.sql`select id::int, username from users`
    const ids = new Map(stored.map(({ username, id }) => [username, id]))
    expect(names.map((name) => ids.get(name))).toEqual(answers.map(idOf))
  })

  test('a conflict leaves its neighbours alone', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const { created } = creator()
    await created('taken')
    sent = []
    // The first conflict fails its statement, which goes again without it; then, for a second, more of them are left out.
    expect(await created('new1', 'TAKEN', 'new2')).toEqual([true, false, true])
    expect(written()).toHaveLength(2)
    expect(await created('taken', 'new3', 'NEW1')).toEqual([false, true, false])
    expect(written()).toHaveLength(3)
    vi.advanceTimersByTime(1001)
    expect(await created('new4', 'new5')).toEqual([true, true])
    expect(await created('new6', 'new4')).toEqual([true, false])
    expect(written()).toHaveLength(6)
    expect(await db.sql`select from users`).toHaveLength(7)
  })

  test('a row that the database refuses is the only one that fails', async () => {
    const { store, create } = creator()
    const bad = { ...user('bad'), email: 'no at sign' }
    const answers = await Promise.allSettled([create('good1'), store.create(bad, until()), create('good2')])
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await db.sql`select from users`).toHaveLength(2)
  })

  test('of rows that share a field in the same moment one wins', async () => {
    const { store } = creator()
    const z = user('zed')
    const users = [z, { ...z, username: 'abc', email: z.email.toUpperCase() }, { ...z, username: 'ZED' }]
    const answers = await Promise.all(users.map((each) => store.create(each, until())))
    expect(answers.filter((answer) => idOf(answer) !== undefined)).toHaveLength(1)
  })

  test('a row is answered only after its commit', async () => {
    const { create } = creator(db)
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const answer = await create(`commit${i}`)
        expect(await db.sql`select from users where id = ${idOf(answer) ?? 0}`).toHaveLength(1)
      }),
    )
  })

  test('two stores that are given the same keys in opposite orders take them in one, and both end', async () => {
    const [one, other] = [creator(), creator()]
    for (let round = 0; round < 20; round++) {
      const names = Array.from({ length: 50 }, (_, i) => `r${round}n${i}`)
      const answers = await Promise.all([one.created(...names), other.created(...names.toReversed())])
      expect(answers.flat().filter(Boolean)).toHaveLength(names.length)
    }
    // Whether two orders would meet in a deadlock is a matter of luck.
    for (const { parameters } of written()) {
      const names = String(parameters[0]).slice(1, -1).split(',')
      expect(names).toEqual(names.toSorted())
    }
  })

  test('when the connection is lost every waiting row fails, and none is sent again', async () => {
    let writes = 0
    const { create } = creator({
      ...db,
      async query() {
        writes++
        throw new DatabaseUnavailable('gone', 'lost')
      },
    })
    const answers = await Promise.allSettled(Array.from({ length: 30 }, (_, i) => create(`lost${i}`)))
    expect(answers.every((a) => a.status === 'rejected' && a.reason instanceof DatabaseUnavailable)).toBe(true)
    expect(writes).toBe(1)
  })

  test('an exception of ours after the commit inserts nothing again', async () => {
    let writes = 0
    const { create } = creator({
      ...db,
      async query(...statement) {
        writes++
        // A time that cannot be decoded.
        return (await db.query(...statement)).map(([id, username]) => [id, username, 0])
      },
    })
    const answers = await Promise.allSettled([create('one'), create('two')])
    expect(answers.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(writes).toBe(1)
    expect(await db.sql`select from users`).toHaveLength(2)
  })

  test('a slow database gets no more statements than a fast one', async () => {
    const statements = async (delayMs: number, deadlineMs: number) => {
      let writes = 0
      const store = createUserStore({
        ...db,
        async query(_use, _text, [usernames], by) {
          writes++
          await new Promise((resolve) => setTimeout(resolve, delayMs))
          if (performance.now() > by) throw new DatabaseUnavailable('it did not answer in time', 'lost')
          const names = String(usernames).slice(1, -1).replaceAll('"', '').split(',')
          return names.map((name, i) => [i + 1, name, '2026-01-02 03:04:05.678+00'])
        },
      })
      const names = Array.from({ length: 1000 }, (_, i) => user(`${delayMs}n${i}`))
      await Promise.allSettled(names.map((each) => store.create(each, performance.now() + deadlineMs)))
      return writes
    }
    expect(await statements(200, 100)).toBeLessThanOrEqual(await statements(0, 60_000))
  })
})

test.each(['username', 'email', 'both'])('a change names what is taken: %s', async (taken) => {
  const { store, create } = creator()
  await create('ann')
  const id = idOf(await create('bob')) ?? 0
  const patch = {
    ...(taken !== 'email' && { username: 'ANN' }),
    ...(taken !== 'username' && { email: 'ANN@example.com' }),
  }
  const fields = taken === 'both' ? ['username', 'email'] : [taken]
  expect(await store.update(id, patch, undefined, until())).toEqual({ outcome: 'conflict', fields })
})

test('any mix of creates, duplicates and repeats at one moment is answered as if it came one by one, in some order', async () => {
  const operation = fc.record({
    username: fc.constantFrom('ann', 'ANN', 'bob', 'cem', 'dea', 'e"\\{,}', 'NULL'),
    email: fc.constantFrom('a@x.io', 'A@x.io', 'b@x.io', 'c@x.io', 'd@x.io', 'e@x.io'),
    key: fc.option(fc.constantFrom('k1', 'k2', 'k3'), { nil: undefined, freq: 2 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), async (operations) => {
      await db.sql`truncate users`
      const store = createUserStore(db)
      const answers = await Promise.all(
        operations.map(({ key, ...user }) =>
          store.create({ ...user, key: key ?? null, hash: key ? `${user.username} ${user.email}` : null }, until()),
        ),
      )

      // In whatever order: who was created comes first, then everybody else is held against them.
      const answered = operations.map((operation, i) => ({ operation, answer: answers[i] as (typeof answers)[number] }))
      const byId = Map.groupBy(
        answered.filter(({ answer }) => idOf(answer) !== undefined),
        ({ answer }) => idOf(answer),
      )
      for (const [first, ...repeats] of byId.values() as Iterable<[(typeof answered)[0]]>) {
        const { username, email, key } = first.operation
        expect(rowOf(first.answer)).toMatchObject({ version: 1, username, email })
        for (const { operation, answer } of repeats as typeof answered) {
          expect(key).toBeDefined()
          expect([operation, rowOf(answer)]).toEqual([first.operation, rowOf(first.answer)])
        }
        // One of them created the user, the others found it.
        expect([first, ...repeats].filter(({ answer }) => 'id' in answer)).toHaveLength(1)
      }
      const users = [...byId.values()].map((same) => same[0]?.operation)
      for (const { operation, answer } of answered.filter(({ answer }) => idOf(answer) === undefined)) {
        const rivals = (field: 'username' | 'email') =>
          users.some((user) => user?.[field].toLowerCase() === operation[field].toLowerCase())
        if ('outcome' in answer && answer.outcome === 'key-reused') {
          expect(users.some((user) => operation.key && user?.key === operation.key)).toBe(true)
        } else {
          const taken = (['username', 'email'] as const).filter(rivals)
          const fields = 'outcome' in answer && answer.outcome === 'conflict' ? answer.fields : []
          expect(fields).not.toEqual([])
          expect(taken).toEqual(expect.arrayContaining([...fields]))
        }
      }
      const [count] = await db.sql`select count(*)::int as n from users`
      expect(count?.n).toBe(byId.size)
    }),
    { numRuns: 150 },
  )
})
