import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { isIP, type Socket, connect as tcpConnect } from 'node:net'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { checkServerIdentity, connect as tlsConnect } from 'node:tls'
import postgres from 'postgres'
import type { Address } from './address.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

declare module 'postgres' {
  interface Options<T extends Record<string, PostgresType>> {
    /** Makes the socket of a connection. It is in the README of postgres.js and missing in its types. */
    socket?: () => Promise<Socket>
    /** Names the types, so that they match the declaration of postgres.js. */
    types?: T
  }
}

/** What a statement may be given: only this is sent as it is. */
export type Parameter = string | number | boolean | null
/** A row's columns in the order of the statement: text, but for booleans, JSON and numbers of up to 4 bytes. */
export type Row = unknown[]

export type ConnectionOptions = {
  address: Address
  applicationName: string
  /** How long an answer is waited for, in ms: PostgreSQL ends a statement before. Without limit if left out. */
  deadlineMs?: number
  /** What a connection is asked before it may carry statements, and again when its answer has grown old. */
  check?: {
    text: string
    /** Why this answer, asked for at `askedAt` as a time of performance.now(), lets it carry none; undefined if it does. */
    fault(answer: Row, askedAt: number): string | undefined
  }
}

export type Connection = Awaited<ReturnType<typeof connect>>

/** Longest wait for the first answer. Short, so that a database that was out of reach is found soon after it returns. */
const CONNECT_TIMEOUT_MS = 1500
/**
 * Of that, the longest for the network to lead there: where a server is gone for good, its name may soon lead to another. If
 * the name has several addresses, Node gives each but the last 250 ms.
 */
const REACH_TIMEOUT_MS = 750

/** Of the deadline, the longest run of a statement: PostgreSQL's own refusal comes before ours. */
const STATEMENT_TIMEOUT_SHARE = 0.9
/** Of the deadline, the longest wait for a lock: meanwhile the statement occupies a connection. */
const LOCK_TIMEOUT_SHARE = 0.2

/** PostgreSQL's settings that end a statement before the deadline. */
export const serverTimeouts = (deadlineMs: number) => [
  `statement_timeout = ${Math.floor(deadlineMs * STATEMENT_TIMEOUT_SHARE)}`,
  `lock_timeout = ${Math.floor(deadlineMs * LOCK_TIMEOUT_SHARE)}`,
]

const HUNG_UP = 'it closed the connection'
/** Asks for TLS (PostgreSQL, section 54.2.10). The answer is S or N. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])

/**
 * Makes TLS of a connection, if its address asks for it. postgres.js would do it as well, but nobody else gets hold of what
 * it made: to cut the connection below TLS ends the process if something is just being written.
 * @throws DatabaseUnavailable when the server has no TLS; an error of Node when it is not trusted
 */
async function secure(socket: Socket, { host, ssl, rootCert }: Address): Promise<Socket> {
  if (ssl === 'disable' || host.startsWith('/')) return socket
  socket.write(SSL_REQUEST)
  const answer = String(await once(socket, 'data'))
  if (answer === 'N' && ssl === 'prefer') return socket
  // More than the one byte would be from someone in between (CVE-2021-23222).
  if (answer !== 'S') throw new DatabaseUnavailable('it offers no TLS', 'unsent')
  const secured = tlsConnect({
    socket,
    servername: isIP(host) ? '' : host,
    ca: rootCert && readFileSync(rootCert),
    rejectUnauthorized: ssl.startsWith('verify') || (ssl === 'require' && Boolean(rootCert)),
    // Node would check an IP address as if it were localhost.
    checkServerIdentity: (_, peer) => (ssl === 'verify-full' ? checkServerIdentity(host, peer) : undefined),
  })
  await once(secured, 'secureConnect')
  return secured
}

/**
 * Asks for a first answer, and for that of the check. Sets the time-outs, unless a pooler shares the session with others: then
 * `pid`, PostgreSQL's process, is undefined.
 */
async function begin(sql: postgres.Sql, { deadlineMs, check }: Omit<ConnectionOptions, 'address'>) {
  const answer = await sql`select pg_backend_pid() as pid`
  // A pooler names another process. Behind it the defaults of the API's role hold, which `migrate` sets.
  const pid = answer[0]?.pid === answer.state.pid ? answer.state.pid : undefined
  if (deadlineMs && pid) {
    const settings = serverTimeouts(deadlineMs).map((setting) => `set ${setting}`)
    await sql.unsafe(settings.join('; '))
  }
  const askedAt = performance.now()
  const [row = []] = check ? await run(sql, check.text, []) : []
  const fault = check?.fault(row, askedAt)
  if (fault) throw new DatabaseUnavailable(fault, 'unsent')
  return { row, askedAt, pid }
}

/**
 * Opens a connection and waits for its first answer. It never reconnects: its owner opens another.
 * @throws DatabaseUnavailable with the reason, and the driver's error as its cause
 */
export async function connect({ address, ...options }: ConnectionOptions) {
  /** Resolves when the server, the network, or we ourselves have closed it. */
  const { promise: closed, resolve: onclose } = Promise.withResolvers<unknown>()
  let socket: Socket | undefined
  /** Cuts the connection at once. */
  const destroy = () => void socket?.destroy()
  async function giveUp(ms: number): Promise<never> {
    // After a pause of this process the answer may lie in the socket: it is read first.
    const late = sleep(ms, undefined, { ref: false }).then(() => nextTurn('it does not answer'))
    throw new DatabaseUnavailable(await Promise.race([closed.then(() => HUNG_UP), late]), 'unsent')
  }
  try {
    const sql = postgres({
      ...address,
      // SCRAM means a password in this form (RFC 7677, RFC 4013), and postgres.js would send another.
      password: address.password.normalize('NFKC'),
      ssl: false,
      max: 1,
      connect_timeout: 0,
      max_lifetime: null,
      fetch_types: false,
      // Times stay text: to make a Date of each costs more than the rest of its row.
      types: { time: { to: 1184, from: [1082, 1083, 1114, 1184], serialize: String, parse: String } },
      connection: {
        application_name: options.applicationName,
        TimeZone: 'UTC',
        DateStyle: 'ISO',
        standard_conforming_strings: 'on',
      },
      onnotice() {},
      async socket() {
        // Called again when postgres.js reconnects, which it would do for ever where a server hangs up each time.
        if (socket) throw new DatabaseUnavailable(HUNG_UP, 'unsent')
        const { host, port } = address
        const target = host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port, noDelay: true }
        socket = tcpConnect(target).once('close', onclose)
        // Some failures come before postgres.js would listen to them.
        await Promise.race([once(socket, 'connect'), giveUp(REACH_TIMEOUT_MS)])
        socket = await Promise.race([secure(socket, address), giveUp(CONNECT_TIMEOUT_MS)])
        return socket
      },
    })
    // postgres.js does not reject a statement that it was given between a reset and the close.
    const checked = await Promise.race([begin(sql, options), giveUp(CONNECT_TIMEOUT_MS)])
    return { sql, destroy, closed, checked }
  } catch (error) {
    destroy()
    const { message } = unavailable(error) ?? (error instanceof Error ? error : new Error(String(error)))
    throw new DatabaseUnavailable(message, 'unsent', error)
  }
}

/**
 * Runs a statement, prepared by name on its first use on this connection, or for this time alone. Only one may run on it
 * at a time.
 * @throws postgres.PostgresError when the database refuses it; an error of the driver when the connection is lost
 */
export async function run(sql: postgres.Sql, text: string, parameters: readonly Parameter[], prepare = true) {
  const rows: postgres.ValuesRowList<Row[]> = await sql.unsafe<Row[]>(text, [...parameters], { prepare }).values()
  // postgres.js counts rows anew only after a statement that succeeded.
  if (rows.length !== rows.count) throw new Error(`PostgreSQL sent ${rows.count} rows, and ${rows.length} were read.`)
  return rows
}
