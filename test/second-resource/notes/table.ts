import { sql } from 'drizzle-orm'
import { bigint, check, index, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core'
import { bookkeeping, identity } from '../../../src/db/columns.ts'
import { users } from '../../../src/users/table.ts'

export const notes = pgTable(
  'notes',
  {
    id: identity(),
    userId: bigint('user_id', { mode: 'number' })
      .notNull()
      .references(() => users.id),
    text: text().notNull(),
    ...bookkeeping(),
  },
  (t) => [
    index('notes_user_id').on(t.userId),
    uniqueIndex('notes_idempotency_key').on(t.idempotencyKey).where(sql`${t.idempotencyKey} is not null`),
    // Control characters stand between the values of joined columns.
    check(
      'notes_text_check',
      sql`char_length(${t.text}) between 1 and 500 and ${t.text} !~ '[\\u0001-\\u001f\\u007f-\\u009f]'`,
    ),
  ],
)
