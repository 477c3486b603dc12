import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { createDatabase, type Database } from './client.ts'
import { arrayText, rfc3339 } from './statement.ts'

let database: TestDatabase
let db: Database
beforeAll(async () => {
  database = await createTestDatabase({ empty: true })
  const address = addressOf(database.url)
  db = createDatabase({ address, applicationName: 'test', deadlineMs: 5000, writeConnections: 1 })
})
afterAll(async () => {
  await db.close(1000)
  await database.drop()
})

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
      expect(told.map((text) => rfc3339(text as string))).toEqual(times)
    }),
    { numRuns: 200 },
  )
})
