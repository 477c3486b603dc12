import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.drop())

const raised = (code: string) =>
  database.sql.unsafe(`do $$ begin raise exception 'for the test' using errcode = '${code}'; end $$`).then(
    () => undefined,
    (error: unknown) => error,
  )

test.each([
  ['53300', 'refused'],
  ['53100', 'refused'],
  ['25006', 'refused'],
  ['40P01', 'refused'],
  ['55P03', 'refused'],
  ['57014', 'refused'],
  ['57P01', 'lost'],
  ['08006', 'lost'],
])('SQLSTATE %s passes by itself, and its statement was %s', async (code, reached) => {
  const error = await raised(code)
  expect(error).toBeInstanceOf(postgres.PostgresError)
  expect(unavailable(error)).toMatchObject({ code, reached })
})

test('a statement that a migration made invalid was not carried out', async () => {
  const sql = await database.sql.reserve()
  await sql.unsafe('create temp table t (a int); prepare p as select * from t; alter table t alter a type text')
  const error = await sql.unsafe('execute p').catch((reason: unknown) => reason)
  sql.release()
  expect(unavailable(error)).toMatchObject({ reached: 'refused', isStale: true, isMomentary: true })
})

test.each(['23505', '23514', '22021', '42P01', '42501'])('SQLSTATE %s tells of the statement', async (code) => {
  expect(unavailable(await raised(code))).toBeUndefined()
})

test.each(['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT', 'EPIPE', 'CONNECTION_CLOSED'])(
  '%s may have been carried out',
  (code) => expect(unavailable(Object.assign(new Error('x'), { code }))).toMatchObject({ reached: 'lost' }),
)

test('a name that no server knows yet is waited for', async () => {
  const sql = postgres('postgres://u:p@no-such-host.invalid/db', { max: 1 })
  const error = await sql`select 1`.catch((reason: unknown) => reason)
  expect(unavailable(error)).toBeInstanceOf(DatabaseUnavailable)
  await sql.end()
})

test.each(['ERR_INVALID_ARG_TYPE', 'ERR_OUT_OF_RANGE', 'UNDEFINED_VALUE'])('%s is a fault of ours', (code) => {
  expect(unavailable(Object.assign(new TypeError('x'), { code }))).toBeUndefined()
})

test('a fault of ours is not the database', () => {
  expect(unavailable(new TypeError('x is not a function'))).toBeUndefined()
  expect(unavailable('text')).toBeUndefined()
})
