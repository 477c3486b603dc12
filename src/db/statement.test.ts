import { sql } from 'drizzle-orm'
import { boolean, integer, pgTable, text } from 'drizzle-orm/pg-core'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestPool, type TestPool } from '../../test/database.ts'
import { at, joined, joinedOrNull } from './columnar.ts'
import { identity, rfc3339, timestamp } from './columns.ts'
import { arrayText, builder, type Placeholders, prepare, type Run } from './statement.ts'

let db: TestPool
beforeAll(async () => {
  db = await createTestPool({ empty: true })
})
afterAll(() => db.close())

/** What PostgreSQL makes of the elements of an array, one after the other. */
async function elements(type: string, array: string) {
  const text = `select element::${type} from unnest($1::text[]) with ordinality as t (element, n) order by n`
  return (await db.read(text, [array])).map(([element]) => element)
}

test('an array comes to PostgreSQL as it was, whatever is in its texts', async () => {
  const awkward = fc.constantFrom('', ' ', 'NULL', 'null', '"', '\\', '\\"', '{}', '{a,b}', ',', "'", '\n', '\u{1f600}')
  const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0'))
  const values = fc.array(
    fc.oneof(
      awkward,
      text,
      fc.array(awkward).map((parts) => parts.join('')),
      fc.integer(),
      fc.constant(null),
    ),
  )
  await fc.assert(
    fc.asyncProperty(values, async (sent) => {
      const expected = sent.map((value) => (value === null ? null : String(value)))
      expect(await elements('text', arrayText(sent))).toEqual(expected)
    }),
    { numRuns: 500 },
  )
})

test('a time of PostgreSQL is told to the millisecond, with the zeros that PostgreSQL leaves out', async () => {
  const [min, max] = [new Date('1970-01-01'), new Date('9999-12-31')]
  const fraction = fc.constantFrom(0, 1, 10, 12, 100, 120, 123, 999)
  const time = fc
    .tuple(fc.date({ min, max, noInvalidDate: true }), fraction)
    .map(([date, ms]) => new Date(date.setMilliseconds(ms)).toISOString())
  await fc.assert(
    fc.asyncProperty(fc.array(time, { minLength: 1 }), async (times) => {
      const told = await elements('timestamptz(3)', arrayText(times))
      expect(told.map((text) => rfc3339(String(text)))).toEqual(times)
    }),
    { numRuns: 200 },
  )
})

const things = pgTable('things', {
  id: identity(),
  name: text().notNull(),
  note: text(),
  size: integer(),
  good: boolean().notNull(),
  createdAt: timestamp('created_at'),
})

test('joined columns come back as the rows that they were, with nulls and empty texts where they belong', async () => {
  await db.sql`create table things (id bigint primary key generated always as identity, name text not null, note text,
    size int, good boolean not null, created_at timestamptz(3) not null default now())`
  const insert = prepare(($: Placeholders<'name' | 'note' | 'size' | 'good'>) =>
    builder
      .insert(things)
      .values({ name: $('name'), note: $('note'), size: $('size'), good: $('good') })
      .returning(),
  )
  const run: Run = (text, parameters) => db.write(text, parameters)
  const rows = []
  for (const [name, note, size, good] of [
    ['', null, null, true],
    ['a', '', 0, false],
    ['b\n"\\,', 'null', -5, true],
    ['c', null, 7, false],
  ] as const) {
    rows.push(...(await insert(run, { name, note, size, good })))
  }
  const page = prepare(() =>
    builder
      .select({
        id: joined(things.id),
        name: joined(things.name),
        note: joinedOrNull(things.note),
        size: joinedOrNull(things.size),
        good: joined(things.good),
        createdAt: joined(things.createdAt),
        short: joinedOrNull(things.name, sql`nullif(${things.name}, '')`),
      })
      .from(things),
  )
  const [columns] = await page(run, {})
  const decoded = Object.entries(columns ?? {}).map(([name, values]) => [name, values?.()] as const)
  const found = rows.map((_, i) =>
    Object.fromEntries(decoded.map(([name, values]) => [name, at<unknown>(values ?? [], i)])),
  )
  expect(found).toEqual(rows.map((row) => ({ ...row, short: row.name || null })))
  expect(() => at(columns?.id?.() ?? [], rows.length)).toThrow(/has 4 values, and row 4 is missing/)
  await db.sql`truncate things`
  const [none] = await page(run, {})
  expect(new Set(Object.values(none ?? {}))).toEqual(new Set([null]))
})

test('a statement that fails throws the error of the database, without its parameters', async () => {
  const fails = prepare(($: Placeholders<'value'>) =>
    builder.select({ n: sql<number>`(${$('value')}::text)::int` }).from(sql`(values (1)) as t (x)`),
  )
  const error: unknown = await fails((...statement) => db.read(...statement), { value: 'secret' }).catch((e) => e)
  expect(error).toMatchObject({ name: 'PostgresError', code: '22P02' })
})

test('a name that a statement does not have, and a value that it lacks, do not compile', () => {
  const get = prepare(($: Placeholders<'id'>) => {
    // @ts-expect-error: the placeholder is misspelt.
    const misspelt = $('idd')
    return builder
      .select()
      .from(things)
      .where(sql`${things.id} in (${$('id')}, ${misspelt})`)
  })
  // @ts-expect-error: the value has another name.
  const call = () => get(async () => [], { idd: 1 })
  expect(call).toBeTypeOf('function')
})
