import { type SQL, sql } from 'drizzle-orm'
import { check, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core'
import { bookkeeping, identity } from '../db/columns.ts'

/**
 * What makes two values the same user: neither case nor normal form counts (Unicode 16, section 3.13.5). What D145 does
 * first, to decompose, is left out: it matters to no letter that Unicode has, and is a tenth of an insert.
 */
export const folded = (value: unknown): SQL =>
  sql`normalize(casefold(${value} collate pg_catalog.pg_unicode_fast), nfc)`

export const users = pgTable(
  'users',
  {
    id: identity(),
    username: text().notNull(),
    email: text().notNull(),
    ...bookkeeping(),
  },
  (t) => [
    uniqueIndex('users_username_key').on(folded(t.username)),
    uniqueIndex('users_email_key').on(folded(t.email)),
    uniqueIndex('users_idempotency_key').on(t.idempotencyKey).where(sql`${t.idempotencyKey} is not null`),
    check('users_username_check', sql`char_length(${t.username}) between 1 and 80 and ${t.username} is nfc normalized`),
    check(
      'users_username_plain',
      sql`${t.username} = btrim(${t.username}) and ${t.username} !~ '[\\u0001-\\u001f\\u007f-\\u009f]'`,
    ),
    check('users_email_check', sql`char_length(${t.email}) between 3 and 254 and position('@' in ${t.email}) > 1`),
    check('users_email_plain', sql`${t.email} !~ '[\\u0001-\\u001f\\u007f-\\u009f]'`),
    check('users_version_check', sql`${t.version} > 0`),
  ],
)
