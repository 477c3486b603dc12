import { AsyncLocalStorage } from 'node:async_hooks'
import { DrizzleQueryError, type Placeholder, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/pg-proxy'
import type { Parameter, Row } from './connection.ts'

/** Sends a statement's text and parameters to PostgreSQL. */
export type Run = (text: string, parameters: readonly Parameter[]) => Promise<Row[]>

/** Makes the placeholders of a statement; other names than these do not compile. */
export type Placeholders<Name extends string> = (name: Name) => Placeholder

/** What Drizzle's builders of select, insert, update and delete have in common. */
type Preparable<Rows> = { prepare(name: string): { execute(values: Record<string, unknown>): Promise<Rows> } }

/** Leads from the statement that Drizzle executes to its `run`. */
const runs = new AsyncLocalStorage<Run>()

/** Drizzle, to build statements with. It is connected to nothing: `prepare` makes them run. */
export const builder = drizzle(async (text, parameters) => {
  const run = runs.getStore()
  if (!run) throw new Error('This statement was not made by prepare().')
  return { rows: await run(text, parameters) }
})

/**
 * Makes a statement. It takes a value for each placeholder, and its rows are typed by the columns that it selects. Its
 * text is built once, when it first runs: building all of them at the start would be a twentieth of a cold start. It
 * throws what `run` throws.
 * @param make builds it; the type of its parameter names the placeholders
 */
export function prepare<Name extends string, Rows>(make: (placeholder: Placeholders<Name>) => Preparable<Rows>) {
  let statement: ReturnType<Preparable<Rows>['prepare']> | undefined
  return async (run: Run, values: Record<Name, Parameter>) => {
    statement ??= make(sql.placeholder).prepare('')
    const execute = statement.execute.bind(statement, values)
    return runs.run(run, execute).catch((error: unknown) => {
      // The message of Drizzle's own error holds the parameters.
      throw error instanceof DrizzleQueryError ? error.cause : error
    })
  }
}

/** A one-dimensional array as PostgreSQL reads it (PostgreSQL, section 8.15.6). */
export const arrayText = (values: readonly (string | number | null)[]): string => `{${values.map(element).join()}}`

const element = (value: string | number | null) =>
  typeof value === 'string' ? `"${value.replace(/[\\"]/g, '\\$&')}"` : (value ?? 'NULL')
