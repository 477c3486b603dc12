import { type Socket, connect as tcpConnect } from 'node:net'
import postgres from 'postgres'
import { type Address, driverOptions } from './address.ts'

export type SessionOptions = {
  address: Address
  applicationName: string
  /** Past it PostgreSQL ends a statement with an error. */
  statementTimeoutMs: number
  /** Past it PostgreSQL ends a statement that waits for a lock. */
  lockTimeoutMs: number
  /** Called when the server or the network has closed it. */
  onclose: () => void
}

/** A postgres.js client of one connection that is used once and never reconnects: its owner knows when and why. */
export type Session = {
  sql: postgres.Sql
  /** Ends what is under way within `timeoutMs`, then the connection. */
  end(timeoutMs: number): Promise<void>
}

const asText = (value: unknown) => value

/** postgres.js sends what it has at once when it is 1 KiB; we wait for the rest of this turn of the event loop. */
const BURST_BYTES = 1024

/** Statements that come in one turn leave in one system call, and wake the backend once. */
function gatherWrites(socket: Socket) {
  const write = socket.write.bind(socket) as (chunk: Uint8Array, ...rest: unknown[]) => boolean
  const uncork = () => socket.uncork()
  socket.write = (chunk: Uint8Array, ...rest: unknown[]) => {
    if (socket.writableCorked === 0 && chunk.length >= BURST_BYTES) {
      socket.cork()
      setImmediate(uncork)
    }
    return write(chunk, ...rest)
  }
}

/**
 * A statement that a migration made invalid is sent again by postgres.js itself, in two parts: on a pipelined connection
 * others come between them, and from then on each caller gets the answer of another. So it is told that such a statement
 * was cancelled, and it fails, for the caller to send it again. (`retried` is where postgres.js notes its own attempt.)
 */
function failStale(sql: postgres.Sql) {
  const { prototype } = sql.unsafe('').constructor
  if (Object.hasOwn(prototype, 'retried')) return
  Object.defineProperty(prototype, 'retried', {
    get: () => undefined,
    set(this: { cancelled: unknown; reject(error: Error): void }, error: Error) {
      this.cancelled = true
      this.reject(error)
    },
  })
}

/** Connects at the first statement. Its deadlines are the caller's to keep: a silent connection is never noticed here. */
export function openSession(options: SessionOptions): Session {
  const { address, onclose } = options
  let socket: (Socket & { host?: string }) | undefined
  const sql = postgres({
    ...driverOptions(address),
    max: 1,
    max_pipeline: Number.MAX_SAFE_INTEGER,
    max_lifetime: null,
    connect_timeout: 0,
    fetch_types: false,
    connection: {
      application_name: options.applicationName,
      TimeZone: 'UTC',
      DateStyle: 'ISO',
      statement_timeout: options.statementTimeoutMs,
      lock_timeout: options.lockTimeoutMs,
    },
    // timestamptz stays text: a Date on the way costs more than the rest of the row.
    types: { time: { to: 1184, from: [1082, 1083, 1114, 1184], serialize: asText, parse: asText } },
    onnotice: () => {},
    onclose,
    // Our own socket, so that one that went silent can be destroyed.
    socket: () => {
      if (socket !== undefined) {
        // The server hung up while the session was opening: postgres.js would try again for ever.
        onclose()
        return socket
      }
      socket = address.host.startsWith('/')
        ? tcpConnect({ path: `${address.host}/.s.PGSQL.${address.port}` })
        : tcpConnect({ host: address.host, port: address.port, noDelay: true })
      socket.host = address.host
      gatherWrites(socket)
      return socket
    },
  } as postgres.Options<Record<string, postgres.PostgresType>>)
  failStale(sql)
  return {
    sql,
    async end(timeoutMs) {
      await sql.end({ timeout: timeoutMs / 1000 })
      socket?.destroy()
    },
  }
}
