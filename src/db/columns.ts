import { and, type Column, eq, sql } from 'drizzle-orm'
import { bigint, customType, integer, text } from 'drizzle-orm/pg-core'
import type { Placeholders } from './statement.ts'

/** Identity values stay within what a JSON number holds exactly (RFC 8259, section 6). */
export const MAX_ID = Number.MAX_SAFE_INTEGER

/** No row has it: identities begin at 1. */
export const NO_ID = 0

/** The primary key of a table: numbers that PostgreSQL gives, from 1 to `MAX_ID`. */
export const identity = () => bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity({ maxValue: MAX_ID })

const time = customType<{ data: string; driverData: string }>({
  dataType: () => 'timestamp(3) with time zone',
  fromDriver: rfc3339,
})

/** A time to the millisecond, as RFC 3339 text in UTC; now, unless given. */
export const timestamp = (name: string) => time(name).notNull().default(sql`now()`)

/** What every table has beside its own columns: a version, what makes a POST safe to repeat, and two times. */
export const bookkeeping = () => ({
  version: integer().notNull().default(1),
  idempotencyKey: text('idempotency_key'),
  idempotencyHash: text('idempotency_hash'),
  createdAt: timestamp('created_at'),
  updatedAt: timestamp('updated_at'),
})

/** The row with this id, if its version is one of these or they are null. */
export const isAtVersion = (table: { id: Column; version: Column }, $: Placeholders<'id' | 'versions'>) =>
  and(eq(table.id, $('id')), sql`(${$('versions')}::int[] is null or ${table.version} = any(${$('versions')}::int[]))`)

/** timestamptz(3) as PostgreSQL writes it in UTC, to RFC 3339: '2026-01-02 03:04:05.67+00' to '2026-01-02T03:04:05.670Z'. */
export function rfc3339(text: string): string {
  if (text.length === 26) return `${text.slice(0, 10)}T${text.slice(11, 23)}Z`
  // PostgreSQL leaves out the zeros at the end of the fraction, and a fraction of none.
  const time = text.slice(11, -3)
  return `${text.slice(0, 10)}T${time.length === 8 ? `${time}.` : time}`.padEnd(23, '0').concat('Z')
}
