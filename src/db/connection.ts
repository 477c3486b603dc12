import { type Socket, connect as tcpConnect } from 'node:net'
import postgres from 'postgres'
import type { Address } from './address.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

declare module 'postgres' {
  interface Options<T extends Record<string, PostgresType>> {
    /** Makes the socket of a connection. It is in the README of postgres.js and missing in its types. */
    socket?: () => Socket
    /** Names the types, so that they match the declaration of postgres.js. */
    types?: T
  }
}

/** What a statement may be given. Anything else is a mistake of ours. */
export type Parameter = string | number | boolean | null
/** A row's columns in the order of the statement: text, but for booleans, JSON and numbers of up to 4 bytes. */
export type Row = unknown[]

export type ConnectionOptions = {
  address: Address
  applicationName: string
  /** PostgreSQL ends a statement that runs or waits for a lock for longer, in ms; never if left out. */
  statementTimeoutMs?: number
  lockTimeoutMs?: number
  /** Called once, when an open connection was closed by the server, the network or `destroy`. */
  onClose?: () => void
}

export type Connection = Awaited<ReturnType<typeof connect>>

/** Longest wait for the first answer. Short, so that a database that was out of reach is found soon after it returns. */
const CONNECT_TIMEOUT_MS = 1500

const asText = (value: string) => value

/** Times stay text: to make a Date of each costs more than the rest of its row. */
const types = { time: { to: 1184, from: [1082, 1083, 1114, 1184], serialize: asText, parse: asText } }

/**
 * Opens a connection and waits for its first answer. It never reconnects: its owner opens another.
 * @throws DatabaseUnavailable with the reason, and the driver's error as its cause
 */
export async function connect(options: ConnectionOptions) {
  const { address, onClose } = options
  let socket: Socket | undefined
  let timedOut = false
  let open = false
  const sql = postgres({
    ...address,
    ssl: address.ssl === 'disable' ? false : address.ssl,
    max: 1,
    connect_timeout: 0,
    max_lifetime: null,
    fetch_types: false,
    types,
    connection: {
      application_name: options.applicationName,
      TimeZone: 'UTC',
      DateStyle: 'ISO',
      statement_timeout: options.statementTimeoutMs ?? 0,
      lock_timeout: options.lockTimeoutMs ?? 0,
    },
    onnotice: () => {},
    onclose: () => open && onClose?.(),
    socket() {
      // Called again when postgres.js reconnects, which it would do for ever where a server hangs up each time.
      if (socket) throw new DatabaseUnavailable(timedOut ? 'it does not answer' : 'it closed the connection', 'unsent')
      socket = address.host.startsWith('/')
        ? tcpConnect(`${address.host}/.s.PGSQL.${address.port}`)
        : tcpConnect({ host: address.host, port: address.port, noDelay: true })
      // For TLS postgres.js reads the server's name from its socket.
      return Object.assign(socket, { host: address.host })
    },
  })
  /** Cuts the connection at once. */
  const destroy = () => void socket?.destroy()
  const timer = setTimeout(() => {
    timedOut = true
    destroy()
  }, CONNECT_TIMEOUT_MS)
  try {
    await sql`select 1`
  } catch (error) {
    destroy()
    const { message } = unavailable(error) ?? (error instanceof Error ? error : new Error(String(error)))
    throw new DatabaseUnavailable(timedOut ? 'it does not answer' : message, 'unsent', error)
  } finally {
    clearTimeout(timer)
  }
  open = true
  /** Waits for the running statement for at most `timeoutMs`, then closes. */
  const close = (timeoutMs: number) => sql.end({ timeout: timeoutMs / 1000 })
  return { sql, close, destroy }
}

/**
 * Runs a statement, prepared by name on its first use on this connection. Only one may run on it at a time.
 * @throws postgres.PostgresError when the database refuses it; an error of the driver when the connection is lost
 */
export async function run({ sql }: Connection, text: string, parameters: readonly Parameter[]): Promise<Row[]> {
  const rows: postgres.ValuesRowList<Row[]> = await sql.unsafe<Row[]>(text, [...parameters], { prepare: true }).values()
  // postgres.js counts rows anew only after a statement that succeeded.
  if (rows.length !== rows.count) throw new Error(`PostgreSQL sent ${rows.count} rows, and ${rows.length} were read.`)
  return rows
}

/** @throws TypeError for a value that PostgreSQL would not be sent as it is, such as undefined or a Date */
export function checkParameters(parameters: readonly unknown[]): asserts parameters is readonly Parameter[] {
  for (const value of parameters) {
    if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') continue
    throw new TypeError(`A parameter is ${typeof value}: only text, numbers, booleans and null can be sent.`)
  }
}
