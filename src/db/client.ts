import { type ConnectionOptions, createConnection, type Row } from './connection.ts'
import { DatabaseUnavailable } from './unavailable.ts'

export type DatabaseOptions = ConnectionOptions & {
  /** Most connections that writes use at a time. */
  writeConnections: number
}

/** What stores are given: statements go in, rows come out. */
export type Database = {
  /** Runs a statement that changes nothing, again if the connection went under it. @throws DatabaseUnavailable */
  read(text: string, parameters: readonly unknown[]): Promise<Row[]>
  /** Runs a statement once, on a connection of its own. @throws DatabaseUnavailable, after which it may have been carried out */
  write(text: string, parameters: readonly unknown[]): Promise<Row[]>
  /** Resolves when the database has answered for the first time, however long that takes. */
  opened(): Promise<void>
  /** Asks the database for an answer. @throws DatabaseUnavailable */
  ping(): Promise<void>
  /** Ends what is under way within its deadline, then every connection. */
  close(): Promise<void>
}

const WATCH_INTERVAL_MS = 100

/**
 * Reads share one connection, which pipelines them: a second one halves the rate, for each statement then wakes
 * another backend. Writes have a few, because a commit waits for the disk and several can wait together.
 */
export function createDatabase(options: DatabaseOptions): Database {
  const { deadlineMs, writeConnections } = options
  const deadline = { ...options, deadlineMs: Math.max(1, deadlineMs - 2 * WATCH_INTERVAL_MS) }
  const reads = createConnection(deadline)
  const { onChange: _, ...quiet } = deadline
  const writes = Array.from({ length: writeConnections }, () => createConnection(quiet))
  const idle = [...writes]
  const waiting = new Set<{ since: number; give(lane: (typeof writes)[number]): void; reject(error: Error): void }>()

  let ticked = performance.now()
  const watcher = setInterval(() => {
    const now = performance.now()
    // After a pause of this process itself the answers may lie in the socket, not yet read: look again next time.
    const paused = now - ticked > 5 * WATCH_INTERVAL_MS
    ticked = now
    if (paused) return
    for (const connection of [reads, ...writes]) connection.watch(now)
    for (const waiter of waiting) {
      if (now - waiter.since <= deadline.deadlineMs) break
      waiting.delete(waiter)
      waiter.reject(new DatabaseUnavailable('no connection was free in time'))
    }
  }, WATCH_INTERVAL_MS).unref()

  function lane() {
    // One that cannot be opened is taken only when no other is left to wait for: then its failure is the answer.
    const usable = idle.findLastIndex((connection) => !connection.failure())
    const [free] = usable >= 0 ? idle.splice(usable, 1) : idle.length === writes.length ? idle.splice(-1) : []
    if (free) return Promise.resolve(free)
    const { promise, resolve, reject } = Promise.withResolvers<(typeof writes)[number]>()
    waiting.add({ since: performance.now(), give: resolve, reject })
    return promise
  }

  function release(connection: (typeof writes)[number]) {
    const [next] = waiting
    if (next === undefined) return void idle.push(connection)
    waiting.delete(next)
    next.give(connection)
  }

  /** After a failover the old primary answers still, but only reads (25006): leave it, on every connection. */
  function renewOnFailover(error: unknown) {
    if (!(error instanceof DatabaseUnavailable) || error.code !== '25006') return
    for (const connection of [reads, ...writes]) connection.renew('the database is read-only')
  }

  return {
    async read(text, parameters) {
      try {
        return await reads.query(text, parameters)
      } catch (error) {
        if (!(error instanceof DatabaseUnavailable && error.lost)) throw error
        return await reads.query(text, parameters)
      }
    },
    async write(text, parameters) {
      const connection = await lane()
      try {
        return await connection.query(text, parameters)
      } catch (error) {
        renewOnFailover(error)
        throw error
      } finally {
        release(connection)
      }
    },
    opened: () => reads.open(),
    async ping() {
      await reads.query('select 1', [])
    },
    async close() {
      clearInterval(watcher)
      await Promise.all([reads, ...writes].map((connection) => connection.close()))
    },
  }
}
