import fc from 'fast-check'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'
import { events } from '../events.ts'
import { NewUser } from './schemas.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

const json = { 'content-type': 'application/json' }
const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 90 })

test('any user that is accepted comes back as it was sent but for forms of its text, and no other is accepted', async () => {
  const user = fc.record({
    username: fc.oneof(name, fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 })),
    email: fc.oneof(
      fc.emailAddress(),
      name,
      fc.tuple(name, name).map(([local, domain]) => `${local}@${domain}`),
      fc.tuple(name, fc.domain()).map(([local, domain]) => `${local}@${domain}`),
    ),
  })
  await fc.assert(
    fc.asyncProperty(user, async (sent) => {
      const created = await api.request('POST', '/users', sent)
      const { success, data } = NewUser.safeParse(sent)
      expect(created.status, created.text).toBeOneOf(success ? [201, 409] : [422])
      if (created.status !== 201) return
      const { id, createdAt } = created.body
      const expected = {
        id,
        username: sent.username.normalize('NFC'),
        email: data?.email,
        createdAt,
        updatedAt: createdAt,
      }
      expect(created.body).toEqual(expected)
      expect((await api.request('GET', `/users/${id}`)).body).toEqual(expected)
      const found = await api.request('GET', `/users?${new URLSearchParams({ username: sent.username })}`)
      expect(found.body.users).toEqual([expected])
      const byEmail = await api.request('GET', `/users?${new URLSearchParams({ email: sent.email })}`)
      expect(byEmail.body.users).toEqual([expected])
      const { status, body } = await api.request('PUT', `/users/${id}`, {
        username: expected.username,
        email: data?.email,
      })
      expect([status, body]).toEqual([200, { ...expected, updatedAt: body.updatedAt }])
    }),
    { numRuns: 300 },
  )
})

test('a beginning of a name finds what a plain search of all names does, in the same order, by pages of any size', async () => {
  const letter = fc.constantFrom(...'aAbsSßẞiIıİσςΣéÉﬁǰ%_\\', 'e\u0301', 'i\u0307', '\u{10ffff}', '\ud7ff', '😀')
  const text = fc.array(letter, { minLength: 1, maxLength: 4 }).map((letters) => letters.join('').normalize())
  /** As PostgreSQL folds these letters: the capital of the dotless i is another's. */
  const fold = (name: string) =>
    [...name]
      .map((char) =>
        char === 'ı' ? char : [...char.toLowerCase().toUpperCase()].map((capital) => capital.toLowerCase()).join(''),
      )
      .join('')
      .normalize()
  const byCodePoints = (a: string, b: string) => Buffer.compare(Buffer.from(fold(a)), Buffer.from(fold(b)))
  const own = await startApi()
  onTestFinished(own.close)
  const names: string[] = []
  await fc.assert(
    fc.asyncProperty(
      fc.array(text, { maxLength: 8 }),
      text,
      fc.integer({ min: 1, max: 9 }),
      async (more, prefix, limit) => {
        for (const username of more) {
          const { status } = await own.request('POST', '/users', { username, email: `${Math.random()}@example.com` })
          expect(status, username).toBe(names.some((name) => fold(name) === fold(username)) ? 409 : 201)
          if (status === 201) names.push(username)
        }
        const found: string[] = []
        for (let cursor: string | null = ''; cursor !== null; ) {
          const query = { usernamePrefix: prefix, limit: `${limit}`, ...(cursor && { cursor }) }
          const { body } = await own.request('GET', `/users?${new URLSearchParams(query)}`)
          found.push(...body.users.map(({ username }: { username: string }) => username))
          cursor = body.next
        }
        expect(found).toEqual(names.filter((name) => fold(name).startsWith(fold(prefix))).sort(byCodePoints))
      },
    ),
    { numRuns: 60 },
  )
})

test('walking the pages while others insert and delete never repeats or loses a user that was there all along', async () => {
  const create = async (username: string) => {
    const { body } = await api.request('POST', '/users', { username, email: `${username}@example.com` })
    return body.id as number
  }
  let run = 0
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 7 }),
      fc.array(fc.constantFrom('insert', 'delete', 'page'), { minLength: 10, maxLength: 40 }),
      async (limit, steps) => {
        run++
        const staying = [await create(`stay${run}a`), await create(`stay${run}b`)]
        const passing = [await create(`pass${run}a`), await create(`pass${run}b`)]
        staying.push(await create(`stay${run}c`))
        const seen: number[] = []
        let path: string | undefined = `/users?limit=${limit}`
        const page = async () => {
          if (!path) return
          const { body } = await api.request('GET', path)
          seen.push(...body.users.map((user: { id: number }) => user.id))
          path = body.next ? `/users?limit=${limit}&cursor=${body.next}` : undefined
        }
        for (const [i, step] of steps.entries()) {
          if (step === 'insert') passing.push(await create(`pass${run}n${i}`))
          else if (step === 'page') await page()
          else if (passing.length > 0) await api.request('DELETE', `/users/${passing.shift()}`)
        }
        while (path) await page()
        expect(new Set(seen).size).toBe(seen.length)
        expect(seen).toEqual(expect.arrayContaining(staying))
        for (const id of [...staying, ...passing]) await api.request('DELETE', `/users/${id}`)
      },
    ),
    { numRuns: 20 },
  )
})

test('no value gets into the text of a statement: PostgreSQL sees the same few, and the values come back unchanged', async () => {
  const texts = new Set<string>()
  const note = (text: string) => void texts.add(text)
  events.on('statement', note)
  onTestFinished(() => void events.off('statement', note))
  let run = 0
  async function everyStatement(sent: { username: string; email: string }, key: string) {
    run++
    const user = { username: `${run} ${sent.username} ${run}`, email: `${run}${sent.email}` }
    const created = await api.request('POST', '/users', user, { ...json, 'idempotency-key': `${run}${key}` })
    expect([created.status, created.body]).toMatchObject([201, user])
    expect((await api.request('POST', '/users', user)).status).toBe(409)
    const path = `/users/${created.body.id}`
    expect((await api.request('GET', path)).body).toMatchObject(user)
    for (const query of [{ username: user.username }, { email: user.email }, user]) {
      const found = await api.request('GET', `/users?${new URLSearchParams(query)}`)
      expect(found.body.users).toMatchObject([user])
    }
    const other = await api.request('GET', `/users?${new URLSearchParams({ username: `${run}${sent.username}` })}`)
    expect(other.body.users).toEqual([])
    const begun = await api.request(
      'GET',
      `/users?${new URLSearchParams({ usernamePrefix: user.username.slice(0, 9) })}`,
    )
    expect(begun.body.users).toMatchObject([user])
    expect((await api.request('GET', `/users?${new URLSearchParams({ cursor: sent.username })}`)).status).toBe(400)
    const stale = await api.request('PUT', path, user, { ...json, 'if-match': `"${sent.email.replaceAll('"', '')}"` })
    expect(stale.status).toBe(412)
    const changed = await api.request('PATCH', path, { username: `${user.username}!` })
    expect([changed.status, changed.body.username]).toEqual([200, `${user.username}!`])
    await api.request('GET', '/users?limit=1')
    expect((await api.request('DELETE', path)).status).toBe(204)
  }
  await everyStatement({ username: 'plain', email: 'plain@example.com' }, 'plain')
  const plain = [...texts].sort()
  expect(plain.length).toBeGreaterThan(6)
  const sql = fc.constantFrom(
    "'",
    "''",
    '"',
    '\\',
    "\\'",
    '--',
    '/*',
    '*/',
    ';',
    '$1',
    '$$',
    '{',
    '}',
    ',',
    '%',
    '_',
    'null',
    ' or 1=1',
    ';drop table users',
  )
  const evil = fc.array(fc.oneof(sql, fc.string({ unit: 'grapheme-ascii', maxLength: 3 })), {
    minLength: 1,
    maxLength: 6,
  })
  const values = fc.record({
    username: evil.map((parts) => parts.join('')),
    email: fc
      .array(fc.constantFrom("'", '`', '$', '{', '}', '%', '*', '/', '-', '|', 'a'), { minLength: 1, maxLength: 8 })
      .map((parts) => `${parts.join('')}@example.com`),
    key: evil.map((parts) => `k${parts.join('').replaceAll(' ', '_')}`),
  })
  await fc.assert(
    fc.asyncProperty(values, async ({ key, ...user }) => {
      await everyStatement(user, key)
      expect([...texts].sort()).toEqual(plain)
    }),
    { numRuns: 100 },
  )
})
