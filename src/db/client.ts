import { setTimeout as sleep } from 'node:timers/promises'
import { type Connection, type ConnectionOptions, createConnection } from './connection.ts'
import type { Row } from './statement.ts'
import { DatabaseUnavailable } from './unavailable.ts'

export type DatabaseOptions = Pick<ConnectionOptions, 'address' | 'applicationName' | 'deadlineMs'> & {
  /** Most connections that writes use at a time. */
  writeConnections: number
  /** Called when reads, or writes alone, begin to fail, and when they succeed again. */
  onChange?: (of: 'reads' | 'writes', failure: DatabaseUnavailable | undefined) => void
}

/** What stores are given: statements go in, rows come out. */
export type Database = {
  /** Runs a statement that changes nothing; retried once if the connection is lost. @throws DatabaseUnavailable */
  read(text: string, parameters: readonly unknown[]): Promise<Row[]>
  /** Whether anyone waits for a read now. */
  busy(): boolean
  /** Runs statements that change nothing on a connection for them alone, until it is closed. */
  session(): { read: Database['read']; close(): Promise<void> }
  /**
   * Runs a statement once, on a connection of its own. Its deadline counts from `since`, a time of performance.now().
   * @throws DatabaseUnavailable, after which it may have been carried out where it was 'lost'
   */
  write(text: string, parameters: readonly unknown[], since?: number): Promise<Row[]>
  /** Resolves when the database has answered for the first time, however long that takes. */
  opened(): Promise<void>
  /** Asks the database for an answer. @throws DatabaseUnavailable */
  ping(): Promise<void>
  /** Ends what is under way within `timeoutMs`, then every connection. */
  close(timeoutMs: number): Promise<void>
}

const WATCH_INTERVAL_MS = 100
const WRITE_RETRY_MS = 50
const WARM_DELAY_MS = 100
const RENEW_INTERVAL_MS = 1000
/**
 * Of the deadline, the longest wait of a write for a lock: meanwhile it occupies a connection, and the rows of a batch
 * that failed need time left to be tried one by one.
 */
const LOCK_TIMEOUT_SHARE = 0.2

/**
 * Reads share one connection, which pipelines them: a second one halves the rate, for each statement then wakes
 * another backend. Writes have a few, because a commit waits for the disk and several can wait together.
 */
export function createDatabase(options: DatabaseOptions): Database {
  const { address, applicationName, writeConnections, onChange } = options
  const deadlineMs = options.deadlineMs - 2 * WATCH_INTERVAL_MS
  const common = { address, applicationName, deadlineMs }
  const reads = createConnection({ ...common, keptOpen: true, onChange: (failure) => onChange?.('reads', failure) })
  const lockTimeoutMs = Math.floor(deadlineMs * LOCK_TIMEOUT_SHARE)
  const writes = Array.from({ length: writeConnections }, () =>
    createConnection({ ...common, keptOpen: false, lockTimeoutMs }),
  )
  const idle = [...writes]
  const sessions = new Set<Connection>()
  const waiting = new Set<{ since: number; resolve(connection: Connection): void; reject(error: Error): void }>()

  let ticked = performance.now()
  const watcher = setInterval(() => {
    const now = performance.now()
    // After a pause of this process itself the answers may lie in the socket, not yet read: look again next time.
    const paused = now - ticked > 5 * WATCH_INTERVAL_MS
    ticked = now
    if (paused) return
    const all = [reads, ...writes, ...sessions]
    const silent = all.map((connection) => connection.expire(now)).includes(true)
    // Then the others may be silent, too: idle ones are renewed, so that no statement waits to find out.
    if (silent) for (const connection of all) connection.renewIfIdle()
    for (const waiter of waiting) {
      if (now - waiter.since <= deadlineMs) continue
      waiting.delete(waiter)
      waiter.reject(new DatabaseUnavailable('no connection was free in time', 'unsent'))
    }
  }, WATCH_INTERVAL_MS).unref()

  function acquire(since: number) {
    // One that cannot be opened is taken only when no other is left to wait for: then its failure is the answer.
    const usable = idle.findLastIndex((connection) => !connection.failure())
    const [free] = usable >= 0 || idle.length === writes.length ? idle.splice(usable, 1) : []
    if (free) return Promise.resolve(free)
    const { promise, resolve, reject } = Promise.withResolvers<Connection>()
    waiting.add({ since, resolve, reject })
    return promise
  }

  function release(connection: Connection) {
    const [next] = waiting
    if (next === undefined) {
      // The one that was used last is used next; one that could not be opened, last.
      if (connection.failure()) idle.unshift(connection)
      else idle.push(connection)
      return
    }
    waiting.delete(next)
    next.resolve(connection)
  }

  let renewed = Number.NEGATIVE_INFINITY
  /** After a failover the old primary answers still, but only reads (25006): leave it, on every connection. */
  function renewOnFailover({ code }: DatabaseUnavailable) {
    if (code !== '25006') return
    const now = performance.now()
    if (now - renewed < RENEW_INTERVAL_MS) return
    renewed = now
    for (const connection of [reads, ...writes]) connection.renew()
  }

  let writeFailure: DatabaseUnavailable | undefined
  function noteWrites(failure: DatabaseUnavailable | undefined) {
    // What concerns one row, or reads as well, tells nothing of writes.
    if (failure?.isOfRow || (failure && reads.failure()) || Boolean(writeFailure) === Boolean(failure)) return
    writeFailure = failure
    onChange?.('writes', failure)
  }

  async function readOn(connection: Connection, text: string, parameters: readonly unknown[]) {
    const since = performance.now()
    try {
      return await connection.query(text, parameters, since)
    } catch (error) {
      if (!(error instanceof DatabaseUnavailable && error.reached === 'lost')) throw error
      return await connection.query(text, parameters, since)
    }
  }

  return {
    read: (text, parameters) => readOn(reads, text, parameters),

    busy: reads.busy,

    session() {
      const connection = createConnection({ ...common, keptOpen: false })
      sessions.add(connection)
      return {
        read: (text, parameters) => readOn(connection, text, parameters),
        async close() {
          sessions.delete(connection)
          await connection.close(0)
        },
      }
    },

    async write(text, parameters, since = performance.now()) {
      const until = since + deadlineMs
      for (;;) {
        const connection = await acquire(since)
        try {
          const rows = await connection.query(text, parameters, since)
          noteWrites(undefined)
          return rows
        } catch (error) {
          if (!(error instanceof DatabaseUnavailable)) throw error
          renewOnFailover(error)
          // Given up, but still under way: nothing else must wait behind it.
          if (connection.busy()) connection.renew()
          // A new connection that could not be opened says nothing of a database that answers others.
          const again = error.reached === 'unsent' && !reads.failure() && performance.now() + WRITE_RETRY_MS < until
          if (!again) {
            noteWrites(error)
            throw error
          }
        } finally {
          release(connection)
        }
        await sleep(WRITE_RETRY_MS)
      }
    },

    async opened() {
      await reads.open()
      // So that the first write need not wait for it; but the first answers come first.
      setTimeout(() => void writes[0]?.open(), WARM_DELAY_MS).unref()
    },

    async ping() {
      await reads.query('select 1', [])
    },

    async close(timeoutMs) {
      clearInterval(watcher)
      for (const waiter of waiting) waiter.reject(new DatabaseUnavailable('this process is stopping', 'unsent'))
      await Promise.all([reads, ...writes, ...sessions].map((connection) => connection.close(timeoutMs)))
    },
  }
}
