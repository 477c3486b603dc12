import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createListener, MAX_HEADER_BYTES, refuseBroken } from './http/refuse.ts'

export type ServerOptions = {
  fetch: Parameters<typeof createListener>[0]
  /** 0 for any free port. */
  port: number
  /** The address to listen on; all of them if left out. */
  host: string | undefined
  /** Aborted when the process is about to stop: from then on each answer closes its connection. */
  stopping: AbortSignal
  /** How long `stop` keeps answering, so that whoever sends requests here can learn to stop. */
  drainDelayMs: number
  /** The whole of `stop` takes no longer: connections that remain are then cut. */
  shutdownTimeoutMs: number
  /** A proxy in front must be the first to close an idle connection: Google's load balancer waits 600 s. */
  keepAliveTimeoutMs: number
  /** From the first byte of a request to the last of its headers. */
  headersTimeoutMs: number
  /** From the first byte of a request to the last of its body. */
  requestTimeoutMs: number
  /** With nothing sent or received for so long, amid a request, a connection is cut: a client that does not read. */
  idleTimeoutMs: number
}

export type RunningServer = { port: number; stop(): Promise<void> }

const SWEEP_INTERVAL_MS = 100
/** How often Node looks for requests that are too slow. */
const CHECK_INTERVAL_MS = 1000

/** Listens; rejects when it cannot. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { stopping, shutdownTimeoutMs, drainDelayMs } = options
  const listener = createListener(options.fetch, stopping)
  const server = createServer({
    maxHeaderSize: MAX_HEADER_BYTES,
    keepAliveTimeout: options.keepAliveTimeoutMs,
    headersTimeout: options.headersTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    // Checked by the listener, because Node's own answer has no body.
    requireHostHeader: false,
    // Two Hosts make none that is valid: else the first would count, and a proxy may go by the second.
    joinDuplicateHeaders: true,
  })
  server.timeout = options.idleTimeoutMs
  // Whoever reads the body says so: it may be one that is refused by its length. Other expectations are ignored.
  server.on('request', listener).on('checkContinue', listener).on('checkExpectation', listener)
  server.on('clientError', refuseBroken)
  server.listen(options.port, options.host)
  await once(server, 'listening')

  async function stop() {
    const started = performance.now()
    await sleep(drainDelayMs)
    const closed = once(server, 'close')
    server.close()
    // A connection whose last answer began before is kept alive still: it is ended when it is idle.
    const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_INTERVAL_MS)
    await Promise.race([closed, sleep(Math.max(0, shutdownTimeoutMs - (performance.now() - started)))])
    clearInterval(sweep)
    server.closeAllConnections()
  }

  return { port: (server.address() as AddressInfo).port, stop }
}
