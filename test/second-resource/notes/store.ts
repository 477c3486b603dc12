import { createChange } from '../../../src/db/change.ts'
import { gatherGets, gatherInserts, gatherPages } from '../../../src/db/gathered.ts'
import { type Pool, runner } from '../../../src/db/pool.ts'
import { arrayText, type Run } from '../../../src/db/statement.ts'
import { DatabaseUnavailable, isForeignKeyViolation } from '../../../src/db/unavailable.ts'
import { type Idempotency, type Refusal, type Result, unchanged, type Versions } from '../../../src/resource.ts'
import type { Note, NoteInput, NotePatch } from './schemas.ts'
import * as statements from './statements.ts'

export type StoredNote = Note & { version: number }
type NewRow = NoteInput & Idempotency

export type NoteStore = ReturnType<typeof createNoteStore>

const NO_USER: Refusal = { outcome: 'reference-missing', field: 'userId' }
const asCreated = (id: number, { userId, text }: NoteInput, createdAt: string): StoredNote => ({
  ...{ id, userId, text, createdAt, updatedAt: createdAt, version: 1 },
})

/**
 * Only a row with a key can be left out; of rows with the same key only the first is sent. The others come back in the
 * order of their ids, which is that of the rows.
 */
const inserting = (statement: typeof statements.insertAll) => async (run: Run, rows: NewRow[]) => {
  const first = new Map(rows.toReversed().map((row) => [row.key ?? row, row]))
  const sent = rows.filter((row) => first.get(row.key ?? row) === row)
  const inserted = await statement(run, {
    userIds: arrayText(sent.map((row) => row.userId)),
    texts: arrayText(sent.map((row) => row.text)),
    keys: arrayText(sent.map((row) => row.key)),
    hashes: arrayText(sent.map((row) => row.hash)),
  })
  const byKey = new Map(inserted.map((row) => [row.key, row]))
  const others = inserted.filter(({ key }) => key === null).values()
  const results = new Map(sent.map((row) => [row, row.key === null ? others.next().value : byKey.get(row.key)]))
  return rows.map((row) => results.get(row))
}

export function createNoteStore(db: Pool) {
  const get = gatherGets(db, statements.getNotes, statements.notesOf)
  const pages = gatherPages(db, statements.listPages, statements.notesOf)
  const inserts = [inserting(statements.insertAll), inserting(statements.insertOrSkip)] as const
  const insert = { requests: gatherInserts(db, ...inserts), streams: gatherInserts(db, ...inserts, 'streams') }
  const change = createChange(db, get)

  return {
    get,
    list: pages.page,
    stream: pages.stream,

    async create(row: NewRow, until: number, use: keyof typeof insert = 'requests'): Promise<Result<StoredNote>> {
      try {
        const inserted = await insert[use](row, until)
        if (inserted) return asCreated(inserted.id, row, inserted.createdAt)
      } catch (error) {
        if (!isForeignKeyViolation(error)) throw error
        return NO_USER
      }
      const [before] = await statements.findByKey(runner(db, 'read', until), { key: row.key })
      if (!before) throw new DatabaseUnavailable('another note came and went', 'refused')
      if (before.hash !== row.hash) return { outcome: 'key-reused' }
      return unchanged(asCreated(before.id, row, before.createdAt))
    },

    async update(id: number, patch: NotePatch, versions: Versions, until: number): Promise<Result<StoredNote>> {
      const { userId = null, text = null } = patch
      if (userId === null && text === null) return unchanged(await get(id, until), versions)
      try {
        return await change(id, versions, until, (run, versions) =>
          statements.updateNote(run, { id, userId, text, versions }),
        )
      } catch (error) {
        if (!isForeignKeyViolation(error)) throw error
        return NO_USER
      }
    },

    remove: (id: number, versions: Versions, until: number): Promise<Result<Pick<StoredNote, 'id' | 'version'>>> =>
      change(id, versions, until, (run, versions) => statements.removeNote(run, { id, versions })),
  }
}
