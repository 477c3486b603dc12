import { type Column, type GetColumnData, type SQL, type SQLWrapper, sql } from 'drizzle-orm'

/** Stand between the values of a joined column, and for null. Text that may hold one of them must not be joined. */
const SEPARATOR = '\u001f'
const NULL = '\u001e'
const [separator, nullMark] = [sql.raw(String.raw`U&'\001f'`), sql.raw(String.raw`U&'\001e'`)]

/** Gives the values of a column. They are decoded at the call, so that many pages that wait for their turn stay small. */
export type Joined<T> = () => T[]

/**
 * The values that a column without nulls has in all rows, joined to one text by PostgreSQL; null where there are no rows.
 * It costs both sides half of what the rows would.
 */
export const joined = <C extends Column & { _: { notNull: true } }>(column: C) =>
  join(sql`${column}::text`, decoder(column))

/** The same of a column with nulls, or of a value that has its type. */
export function joinedOrNull<C extends Column>(column: C, value: SQLWrapper = column) {
  const decode = decoder(column)
  return join(sql`coalesce(${value}::text, ${nullMark})`, (text) => (text === NULL ? null : decode(text)))
}

const join = <T>(text: SQL, decode: (text: string) => T): SQL<Joined<T> | null> =>
  sql`string_agg(${text}, ${separator})`.mapWith((values: string) => () => values.split(SEPARATOR).map(decode))

/** Reads a value as Drizzle does; a boolean that is cast to text is not what PostgreSQL sends otherwise. */
const decoder = <C extends Column>(column: C): ((text: string) => GetColumnData<C, 'raw'>) =>
  column.dataType === 'boolean' ? (text) => text === 'true' : (text) => column.mapFromDriverValue(text)

/** The value of a row in a column; all columns of an answer have as many values. */
export function at<T>(column: readonly T[], row: number): T {
  const value = column[row]
  if (value === undefined) throw new Error(`A joined column has ${column.length} values, and row ${row} is missing.`)
  return value
}
