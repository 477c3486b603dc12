import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from './config.ts'
import { events } from './events.ts'
import { createListener, hasUnsentEnd, MAX_HEADER_BYTES, refuseBroken } from './http/listener.ts'

export type ServerOptions = Config & {
  fetch: Parameters<typeof createListener>[0]
  /** Aborted when the process is about to stop: from then on each answer closes its connection. */
  stopping: AbortSignal
}

/** How often Node looks for requests that are too slow. */
const CHECK_INTERVAL_MS = 1000
/** How often a stop looks whether there are connections that it must not close yet. */
const PENDING_INTERVAL_MS = 20
/** How long a stop waits for the first byte of a connection. */
const FIRST_BYTE_MS = 500

/** Listens; rejects when it cannot. */
export async function startServer(options: ServerOptions) {
  const listener = createListener(options.fetch, options.stopping)
  const server = createServer({
    maxHeaderSize: MAX_HEADER_BYTES,
    keepAliveTimeout: options.KEEP_ALIVE_TIMEOUT_MS,
    headersTimeout: options.HEADERS_TIMEOUT_MS,
    requestTimeout: options.REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    // Checked by the listener, because Node's own answer has no body.
    requireHostHeader: false,
    // Two Host headers then make one that is not valid. Node would take the first, and a proxy perhaps the second.
    joinDuplicateHeaders: true,
  })
  server.timeout = options.IDLE_TIMEOUT_MS
  /** The open connections, each with the bytes that its client must have taken by the next look. */
  const connections = new Map<Socket, number>()
  server.on('connection', (socket) => {
    connections.set(socket, 0)
    socket.once('close', () => connections.delete(socket))
  })
  /**
   * Cuts who has not taken by one look what waited for it at the look before. Node cuts only those that take nothing: one
   * that takes a byte now and then would hold its answer in memory, or its place of a stream, for ever.
   */
  function cutSlowReaders() {
    for (const [socket, due] of connections) {
      if (socket.bytesWritten - socket.writableLength < due) socket.destroy()
      connections.set(socket, socket.bytesWritten)
    }
  }
  // After a pause of the process, first what was taken meanwhile.
  const looks = server.timeout > 0 ? setInterval(() => setImmediate(cutSlowReaders), server.timeout) : undefined
  server.maxConnections = options.MAX_CONNECTIONS
  // Not logged: a flood of connections must not become one of lines.
  server.on('drop', () => events.emit('refused', 'connections'))
  // `receiveBody` sends 100 Continue, because it may refuse a body by its length. Other expectations are ignored.
  server.on('request', listener).on('checkContinue', listener).on('checkExpectation', listener)
  server.on('clientError', refuseBroken)
  server.listen(options.PORT, options.HOST)
  await once(server, 'listening')

  async function stop() {
    const until = performance.now() + options.SHUTDOWN_TIMEOUT_MS
    await sleep(options.DRAIN_DELAY_MS)
    // Not the `close` of HTTP: it ends the time-outs of requests, and takes a connection for idle whose answer is made, but
    // whose client has not taken all of it.
    const closed = new Promise((resolve) => NetServer.prototype.close.call(server, resolve))
    // A connection whose last answer began before stays open for a second more at most, which is Node's margin.
    server.keepAliveTimeout = 1
    // Browsers open connections in advance. A request that has just been sent is on its way.
    const silentUntil = performance.now() + FIRST_BYTE_MS
    const isSilent = (socket: Socket) => socket.bytesRead === 0
    const isPending = (socket: Socket) => hasUnsentEnd(socket) || (isSilent(socket) && performance.now() < silentUntil)
    while ([...connections.keys()].some(isPending) && performance.now() < until) await sleep(PENDING_INTERVAL_MS)
    for (const socket of [...connections.keys()].filter(isSilent)) socket.destroy()
    server.closeIdleConnections()
    await Promise.race([closed, sleep(Math.max(0, until - performance.now()))])
    clearInterval(looks)
    server.closeAllConnections()
  }

  return { port: (server.address() as AddressInfo).port, stop }
}
