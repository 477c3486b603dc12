import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener, RequestError } from '@hono/node-server'
import { Problem } from './http/problem.ts'
import { MAX_HEADER_BYTES, refuseBrokenRequest, refuseRequest, refuseSocket } from './http/refuse.ts'

export type ServerOptions = {
  fetch: Parameters<typeof getRequestListener>[0]
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

const NO_HOST = new Problem(400, 'The request has no Host header.')
const INVALID_TARGET = new Problem(400, 'The Host header or the request target is not valid.')
const NO_PROXY = new Problem(405, 'This is not a proxy.')
const UNKNOWN_EXPECTATION = new Problem(417, 'The only expectation that can be met is 100-continue.')

/** Listens; rejects when it cannot. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { stopping, shutdownTimeoutMs, drainDelayMs } = options
  let invalidTarget = false
  const respond = getRequestListener(options.fetch, {
    // Of an HTTP/1.0 request that names no host.
    hostname: 'localhost',
    errorHandler(error) {
      // Called before `respond` returns, where no URL can be made of the host and the target.
      if (error instanceof RequestError) invalidTarget = true
      else return new Response(null, { status: 500 })
    },
  })
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      keepAliveTimeout: options.keepAliveTimeoutMs,
      headersTimeout: options.headersTimeoutMs,
      requestTimeout: options.requestTimeoutMs,
      connectionsCheckingInterval: Math.min(1000, options.headersTimeoutMs),
      // Checked below, because Node's own answer has no body.
      requireHostHeader: false,
      // Two Hosts make none that is valid: else the first would count, and a proxy may go by the second.
      joinDuplicateHeaders: true,
      noDelay: true,
    },
    (request, response) => {
      if (stopping.aborted) response.shouldKeepAlive = false
      if (!request.headers.host && request.httpVersion !== '1.0') {
        return refuseRequest(request, response, NO_HOST)
      }
      if (!request.url?.startsWith('/')) return refuseRequest(request, response, INVALID_TARGET)
      void respond(request, response)
      if (invalidTarget) {
        invalidTarget = false
        refuseRequest(request, response, INVALID_TARGET)
      }
    },
  )
  server.timeout = options.idleTimeoutMs
  server.on('clientError', refuseBrokenRequest)
  // Whoever reads the body says so: it may be one that is refused by its length.
  server.on('checkContinue', (request, response) => server.emit('request', request, response))
  server.on('connect', (_request, socket: Duplex) => refuseSocket(socket, NO_PROXY))
  server.on('checkExpectation', (request, response) => refuseRequest(request, response, UNKNOWN_EXPECTATION))
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
