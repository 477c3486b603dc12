import { type Column, type GetColumnData, type SQL, type SQLWrapper, sql } from 'drizzle-orm'

/** Stand between the values of a joined column, and for null. Text that may hold one of them must not be joined. */
const SEPARATOR = '\u001f'
const NULL = '\u001e'
const [separator, nullMark] = [sql.raw(String.raw`U&'\001f'`), sql.raw(String.raw`U&'\001e'`)]

/** Gives the values of a column. They are decoded at the call, so that many pages that wait for their turn stay small. */
export type Joined<T> = () => T[]

/**
 * A column's values of all rows, joined to one text by PostgreSQL; null where there are no rows. It costs both sides half
 * of what the rows would.
 */
export const joined = <C extends Column>(column: C): SQL<Joined<GetColumnData<C>> | null> =>
  join(
    column.notNull ? sql`${column}::text` : nullSafe(column),
    column.notNull ? decoder(column) : orNull(decoder(column)),
  )

/** The same of a value that has the type of `column`, or is null. */
export const joinedOrNull = <C extends Column>(
  column: C,
  value: SQLWrapper,
): SQL<Joined<GetColumnData<C> | null> | null> => join(nullSafe(value), orNull(decoder(column)))

const nullSafe = (value: SQLWrapper) => sql`coalesce(${value}::text, ${nullMark})`

const join = <T>(text: SQL, decode: (text: string) => T): SQL<Joined<T>> =>
  sql`string_agg(${text}, ${separator})`.mapWith((values: string) => () => values.split(SEPARATOR).map(decode))

/** Drizzle types what it selects by the column alone, too. */
const decoder = <C extends Column>(column: C) =>
  (column.dataType === 'boolean'
    ? (text: string) => text === 'true'
    : (text: string) => column.mapFromDriverValue(text)) as (text: string) => GetColumnData<C>

const orNull =
  <T>(decode: (text: string) => T) =>
  (text: string) =>
    text === NULL ? null : decode(text)

/** The value of a row in a column; all columns of an answer have as many values. */
export function at<T>(column: readonly T[], row: number): T {
  const value = column[row]
  if (value === undefined) throw new Error(`A joined column has ${column.length} values, and row ${row} is missing.`)
  return value
}
