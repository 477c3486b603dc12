import { type Socket, connect as tcpConnect } from 'node:net'
import postgres from 'postgres'
import { type Address, driverOptions } from './address.ts'
import { readBuffer } from './read-buffer.ts'
import type { Row } from './statement.ts'

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
  /** Sends a statement, prepared by name on its first use here, and calls one of the functions, once. */
  query(
    text: string,
    parameters: readonly unknown[],
    resolve: (rows: Row[]) => void,
    reject: (error: unknown) => void,
  ): void
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
 * A statement as postgres.js takes it from its own `Query`, which costs more and keeps more: V8 counts functions that
 * are assigned to properties as old from the start, and so each query stays in memory, with its rows, until the next
 * full collection.
 */
class Statement {
  readonly strings: readonly [string]
  readonly args: readonly unknown[]
  readonly resolve: (rows: Row[]) => void
  readonly reject: (error: unknown) => void
  readonly options = { prepare: true }
  readonly isRaw = 'values'
  readonly origin = ''
  cancelled = false
  // Set by postgres.js; named here so that all statements have one shape.
  active = false
  state: unknown = undefined
  string: unknown = undefined
  prepare: unknown = undefined
  prepared: unknown = undefined
  signature: unknown = undefined
  describeFirst: unknown = undefined
  parameters: unknown = undefined
  statement: unknown = undefined

  constructor(
    text: string,
    parameters: readonly unknown[],
    resolve: (rows: Row[]) => void,
    reject: (error: unknown) => void,
  ) {
    this.strings = [text]
    this.args = parameters
    this.resolve = resolve
    this.reject = reject
  }

  /**
   * postgres.js notes here why it sends a statement again that a migration made invalid. It does so in two parts: on a
   * pipelined connection others come between them, and from then on each caller gets the answer of another. So the
   * statement counts as cancelled, and fails, for the caller to send it again.
   */
  set retried(reason: unknown) {
    this.cancelled = true
    this.reject(reason)
  }
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
      // postgres.js takes whole messages without keeping any of their bytes. TLS reads by itself.
      const reads = address.ssl === 'disable' && { onread: readBuffer((messages) => socket?.emit('data', messages)) }
      socket = address.host.startsWith('/')
        ? tcpConnect({ path: `${address.host}/.s.PGSQL.${address.port}`, ...reads })
        : tcpConnect({ host: address.host, port: address.port, noDelay: true, ...reads })
      socket.host = address.host
      gatherWrites(socket)
      return socket
    },
  } as postgres.Options<Record<string, postgres.PostgresType>>)
  // What postgres.js does with its own queries when they are awaited.
  const { handler: send } = sql.unsafe('') as unknown as { handler(statement: Statement): void }
  return {
    query: (...statement) => send(new Statement(...statement)),
    async end(timeoutMs) {
      await sql.end({ timeout: timeoutMs / 1000 })
      socket?.destroy()
    },
  }
}
