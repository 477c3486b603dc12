import { setTimeout as sleep } from 'node:timers/promises'
import { events } from '../events.ts'
import { at, type Joined } from './columnar.ts'
import { gather } from './gather.ts'
import { type Pool, runner, type Source } from './pool.ts'
import { arrayText, type Run } from './statement.ts'
import { DatabaseUnavailable, isConstraintViolation, isUniqueViolation } from './unavailable.ts'

/** Rows that a statement of a stream reads. */
const STREAM_BATCH = 50
/** How long a stream rests while requests are under way, as a multiple of the time that its last statement took. */
const STREAM_REST = 9
/** Short of any time-out of its client. */
const STREAM_REST_MAX_MS = 1000
/** Rows that a statement inserts: for requests, and for streams, which have many. */
const INSERT_BATCH = 200
const STREAM_INSERT_BATCH = 1000
/** After a conflict, rows that conflict are skipped for this long: in this time at most one batch fails because of one. */
const CONFLICTS_EXPECTED_MS = 1000
/** A page counts for so many rows at least, because each is a scan of its own. */
const PAGE_WEIGHT_MIN = 100

/** Lets requests go first: waits for a while after a statement of a stream that took `tookMs`, if there are any. */
const rest = async (db: Pool, tookMs: number) => {
  if (db.busy()) await sleep(Math.min(STREAM_REST * tookMs, STREAM_REST_MAX_MS))
}

/**
 * Makes a function that gets one row by its id, with its version; ids that are asked for together share a statement.
 * @param getRows reads rows as one row of joined columns, in any order; it is given their ids as the text of an array
 */
export const gatherGets = <Columns extends { versions: Joined<number> | null }, Row extends { id: number }>(
  db: Pool,
  getRows: (run: Run, asked: { ids: string }) => Promise<Columns[]>,
  rowsOf: (columns: Columns) => Row[],
) =>
  gather<number, (Row & { version: number }) | undefined>({
    maxInFlight: 2,
    maxWeight: 100,
    async run(ids, until) {
      events.emit('batch', 'gets', ids.length)
      const [columns] = await getRows(runner(db, 'read', until, 'primary-first'), { ids: arrayText(ids) })
      const rows = columns ? rowsOf(columns) : []
      const versions = columns?.versions?.() ?? []
      const found = new Map(rows.map((row, i) => [row.id, { ...row, version: at(versions, i) }]))
      return ids.map((id) => found.get(id))
    },
  })

/** Where a page begins and how long it is. A fresh one is the primary's; others may come from a replica, and be late. */
export type Place<After = number> = { after: After; limit: number; fresh?: boolean }

/** Which server a page may come from. */
export const pageSource = (fresh = false): Source => (fresh ? 'primary-first' : 'replica-first')

/**
 * Makes the functions that read rows by id.
 * @param list reads several pages at once, each of at most `limit` rows after an id; it is given arrays as text
 * @param rowsOf decodes a page when its turn has come, so that many that wait stay small
 */
export function gatherPages<Page, Row extends { id: number }>(
  db: Pool,
  list: (run: Run, asked: { after: string; limit: string }) => Promise<Page[]>,
  rowsOf: (page: Page) => Row[],
) {
  const gatherPage = (fresh: boolean) =>
    gather<Place, Page>({
      maxInFlight: 2,
      maxWeight: 4000,
      weigh: ({ limit }) => Math.max(limit, PAGE_WEIGHT_MIN),
      run(pages, until) {
        events.emit('batch', 'pages', pages.length)
        const [after, limit] = [pages.map((page) => page.after), pages.map((page) => page.limit)]
        return list(runner(db, 'read', until, pageSource(fresh)), { after: arrayText(after), limit: arrayText(limit) })
      },
    })
  const [getPage, getFreshPage] = [gatherPage(false), gatherPage(true)]

  return {
    /** At most `limit` rows with ids above `after`; pages that are asked for together share a statement. */
    page: async (place: Place, until: number) => rowsOf(await (place.fresh ? getFreshPage : getPage)(place, until)),

    /**
     * All rows with ids above `after`, by id, some at a time. Each time is a statement of its own: no transaction stays
     * open however long the caller takes. While there are other requests, it rests most of the time.
     */
    async *stream(after: number, fresh = false): AsyncGenerator<Row[]> {
      for (let last = after; ; ) {
        const start = performance.now()
        const asked = { after: arrayText([last]), limit: arrayText([STREAM_BATCH]) }
        const [page] = await list(runner(db, 'stream', start + db.deadlineMs, pageSource(fresh)), asked)
        const tookMs = performance.now() - start
        const rows: Row[] = page ? rowsOf(page) : []
        const end = rows.at(-1)
        if (!end) return
        last = end.id
        yield rows
        await rest(db, tookMs)
      }
    },
  }
}

/**
 * Makes a function that inserts one row; rows that are asked for together share a statement, and so a commit. It answers
 * after the commit; with undefined if another row has one of its keys. A row that is refused fails alone. Rows of streams
 * share statements of their own, and rest while there are requests.
 * @param insertAll inserts all rows with one statement, or none where one conflicts (SQLSTATE 23505). One result for each
 * row, in their order
 * @param insertOrSkip leaves out the rows that conflict: their results are undefined
 */
export function gatherInserts<Row, Inserted>(
  db: Pool,
  insertAll: (run: Run, rows: Row[]) => Promise<(Inserted | undefined)[]>,
  insertOrSkip: typeof insertAll,
  use: 'requests' | 'streams' = 'requests',
) {
  let conflictsUntil = Number.NEGATIVE_INFINITY
  let rested: Promise<void> | undefined

  async function insert(run: Run, rows: Row[]): Promise<(Inserted | undefined | Promise<Inserted | undefined>)[]> {
    // To skip, PostgreSQL looks for each key twice: that is half as much work again.
    const skip = rows.length === 1 || performance.now() < conflictsUntil
    try {
      return await (skip ? insertOrSkip : insertAll)(run, rows)
    } catch (error) {
      const isMomentary = error instanceof DatabaseUnavailable && error.isMomentary
      if (rows.length === 1 || !(isConstraintViolation(error) || isMomentary)) throw error
      if (!skip && isUniqueViolation(error)) {
        conflictsUntil = performance.now() + CONFLICTS_EXPECTED_MS
        return insert(run, rows)
      }
      // Nothing was done because of one row: each goes alone.
      const alone = rows.map(async (row) => (await insertOrSkip(run, [row]))[0])
      // A caller whose deadline has passed listens no more.
      void Promise.allSettled(alone)
      return alone
    }
  }

  return gather<Row, Inserted | undefined>({
    // A commit costs more than a row: all that come meanwhile share the next one.
    maxInFlight: 1,
    maxWeight: use === 'streams' ? STREAM_INSERT_BATCH : INSERT_BATCH,
    async run(rows, until) {
      await rested
      events.emit('batch', 'inserts', rows.length)
      const start = performance.now()
      const results = await insert(runner(db, 'write', until), rows)
      if (use === 'streams') rested = rest(db, performance.now() - start)
      return results
    },
  })
}
