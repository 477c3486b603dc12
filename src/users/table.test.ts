import { sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { folded } from './table.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.drop())

/** The pairs of which PostgreSQL does not say that both are the same user; Node may know letters that it does not. */
async function apart(pairs: (readonly [string, string])[]) {
  const { sql: same } = new PgDialect().sqlToQuery(sql`${folded(sql.raw('a'))} = ${folded(sql.raw('b'))}`)
  const rows = await database.sql.unsafe(
    `select a, b from unnest($1::text[], $2::text[]) as pair (a, b) where not ${same} and unicode_assigned(a || b)`,
    [pairs.map(([a]) => a), pairs.map(([, b]) => b)],
  )
  return rows.map(({ a, b }) => `${a} ${b}`)
}

const letters = Array.from({ length: 0x2_0000 }, (_, i) => i)
  .filter((code) => code < 0xd800 || code > 0xdfff)
  .map((code) => String.fromCodePoint(code))
  .filter((letter) => /\p{L}/u.test(letter))

test('a letter, its upper case and its lower case are the same user, in every normal form', async () => {
  const pairs = letters.flatMap((letter) => {
    const cases = [letter, letter.toUpperCase(), letter.toLowerCase()]
    const forms = new Set(cases.flatMap((form) => [form, form.normalize('NFC'), form.normalize('NFD')]))
    return [...forms].filter((form) => form !== letter).map((form) => [letter, form] as const)
  })
  expect(pairs.length).toBeGreaterThan(5000)
  // The dotless i's capital is I, whose small letter is another: not the same in Turkish, nor here.
  expect(await apart(pairs)).toEqual(['ı I'])
})

test('ß and ss, the two small sigmas, a ligature and its letters are the same user', async () => {
  expect(
    await apart([
      ['Straße', 'STRASSE'],
      ['ὀδυσσεύς', 'ὈΔΥΣΣΕΎΣ'],
      ['ﬁn', 'FIN'],
    ]),
  ).toEqual([])
})

test('an accent, a letter of another script and a space make another user', async () => {
  const others = [
    ['Zoe', 'Zoë'],
    ['a', 'а'],
    ['ab', 'a b'],
  ] as const
  expect(await apart([...others])).toHaveLength(others.length)
})
