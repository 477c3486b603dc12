import { fillPlaceholders, type Query, type SQLWrapper } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'

/** A row's columns as PostgreSQL's text, but booleans and numbers of up to 4 bytes. */
export type Row = readonly (string | number | boolean | null)[]

/** Drizzle to build statements with; it is connected to nothing. */
export const builder = drizzle.mock()

/** A statement whose text is made once: runs by `read` or `write` of a Database, its placeholders filled by name. */
export type Statement<Name extends string> = (run: Run, values: Record<Name, unknown>, since?: number) => Promise<Row[]>
type Run = (text: string, parameters: readonly unknown[], since?: number) => Promise<Row[]>

const dialect = new PgDialect()

/**
 * Makes a statement of a Drizzle query, or of its `sql` template, that has `sql.placeholder`s by these names. `make` is
 * called when it first runs: to make all of them at once would be a twentieth of a cold start.
 */
export function prepare<Name extends string>(make: () => SQLWrapper): Statement<Name> {
  let made: Query | undefined
  return (run, values, since) => {
    made ??= dialect.sqlToQuery(make().getSQL())
    return run(made.sql, fillPlaceholders(made.params, values), since)
  }
}

/** Whether a statement was refused because another row has a value that is unique (SQLSTATE 23505). */
export const isUniqueViolation = (error: unknown): error is postgres.PostgresError =>
  error instanceof postgres.PostgresError && error.code === '23505'

/** A one-dimensional array as PostgreSQL reads it (PostgreSQL, section 8.15.6). */
export const arrayText = (values: readonly (string | number | null)[]): string => `{${values.map(element).join()}}`

const element = (value: string | number | null) =>
  typeof value === 'string' ? `"${value.replace(/[\\"]/g, '\\$&')}"` : (value ?? 'NULL')

/** timestamptz(3) as PostgreSQL writes it in UTC, to RFC 3339: '2026-01-02 03:04:05.67+00' to '2026-01-02T03:04:05.670Z'. */
export function rfc3339(text: string): string {
  if (text.length === 26) return `${text.slice(0, 10)}T${text.slice(11, 23)}Z`
  // PostgreSQL leaves out the zeros at the end of the fraction, and a fraction of none.
  const time = text.slice(11, -3)
  return `${text.slice(0, 10)}T${time.length === 8 ? `${time}.` : time}`.padEnd(23, '0').concat('Z')
}
