import type postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { arrayText } from '../../src/db/statement.ts'
import { listPageByName } from '../../src/users/statements.ts'
import { createTestDatabase, type TestDatabase } from '../database.ts'

const USERS = 1_000_000

let database: TestDatabase
let connection: postgres.ReservedSql
beforeAll(async () => {
  database = await createTestDatabase()
  // Three hexadecimal digits: a beginning of one letter has a sixteenth of the users, one of three some 240.
  await database.sql`insert into users (username, email)
    select name, name || '@example.com' from generate_series(1, ${USERS}::int) i, concat(left(md5(i::text), 3), 'User', i) name`
  await database.sql`vacuum analyze users`
  connection = await database.sql.reserve()
  await connection.unsafe(`prepare page (text[], text[], int[], int) as ${(await sent('', '', 1)).text}`)
})
afterAll(async () => {
  connection.release()
  await database.drop()
})

/** The statement as PostgreSQL gets it. */
async function sent(prefix: string, after: string, limit: number) {
  const statement = { text: '', parameters: [] as readonly unknown[] }
  async function note(text: string, parameters: readonly unknown[]) {
    Object.assign(statement, { text, parameters })
    return []
  }
  await listPageByName(note, { prefix: arrayText([prefix]), after: arrayText([after]), limit: arrayText([limit]) })
  return statement
}

type Node = { 'Node Type': string; 'Index Name'?: string; 'Actual Rows': number; Plans?: Node[] }
const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

test.each(['force_custom_plan', 'force_generic_plan'])(
  'with %s a search by the beginning of a name reads the rows of its page from the index, in its order',
  async (mode) => {
    await connection.unsafe(`set plan_cache_mode = ${mode}`)
    for (const prefix of ['a', 'ABC', 'abcUser1', 'nobody', 'f']) {
      for (const after of ['', 'a8', 'afffuser9', 'fffuser9']) {
        for (const limit of [2, 101, 1001]) {
          const asked = (await sent(prefix, after, limit)).parameters.map((value) => `'${value}'`)
          const [row] = await connection.unsafe(`explain (analyze, format json) execute page (${asked.join()})`)
          const nodes = nodesOf(row?.['QUERY PLAN'][0].Plan)
          const scans = nodes.filter((node) => /Scan/.test(node['Node Type']) && node['Node Type'] !== 'Function Scan')
          const about = JSON.stringify([prefix, after, limit, nodes.map((node) => node['Node Type'])])
          expect(scans, about).toMatchObject([{ 'Node Type': 'Index Scan', 'Index Name': 'users_username_key' }])
          expect(scans[0]?.['Actual Rows'], about).toBeLessThanOrEqual(limit)
          expect(about).not.toContain('Sort')
        }
      }
    }
  },
)
