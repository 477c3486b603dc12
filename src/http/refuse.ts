import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { getRequestListener, RequestError } from '@hono/node-server'
import { PROBLEM_MEDIA_TYPE, Problem, problemJson } from './problem.ts'
import { requestIdOf } from './request-id.ts'

export const MAX_HEADER_BYTES = 16 * 1024

/** What the HTTP parser refuses, by its error code; 400 for the rest. */
const PARSER_PROBLEMS: Record<string, Problem> = {
  HPE_HEADER_OVERFLOW: new Problem(431, `The headers must have at most ${MAX_HEADER_BYTES} bytes.`),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Problem(413, 'The chunk extensions are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem(408, 'The request did not arrive in time.'),
}
const NOT_HTTP = new Problem(400, 'The request is not valid HTTP.')

const NO_HOST = new Problem(400, 'The request has no Host header.')
const INVALID_TARGET = new Problem(400, 'The Host header or the request target is not valid.')
const CHUNKED_ONLY = new Problem(501, 'The only transfer coding that can be read is chunked.')
const NO_TRANSFER_CODING = new Problem(400, 'HTTP/1.0 has no Transfer-Encoding.')
const NO_PROXY = new Problem(501, 'This server is no proxy: it cannot CONNECT.')
const UNKNOWN_EXPECTATION = new Problem(417, 'The only expectation that can be met is 100-continue.')

const authorityOf = (url: string) => URL.parse(url)?.host

/** Why the app cannot be asked, though the parser took the request (RFC 9112, sections 3.2 and 6.1). */
function faultOf({ httpVersion, url = '', headers }: IncomingMessage): Problem | undefined {
  const { host, 'transfer-encoding': coding } = headers
  if (!host && httpVersion !== '1.0') return NO_HOST
  // A target may name its server, if it is this one.
  if (url[0] !== '/' && !(/^https?:/.test(url) && authorityOf(url) === authorityOf(`http://${host}`))) {
    return INVALID_TARGET
  }
  if (coding === undefined) return undefined
  if (httpVersion === '1.0') return NO_TRANSFER_CODING
  return coding.toLowerCase() === 'chunked' ? undefined : CHUNKED_ONLY
}

const requestIdIn = ({ headers }: IncomingMessage) => requestIdOf(headers['x-request-id'] as string | undefined)

function written(requestId: string, problem: Problem, target?: string) {
  const body = problemJson(problem, target, requestId)
  const headers = {
    'Content-Type': PROBLEM_MEDIA_TYPE,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Request-Id': requestId,
    Connection: 'close',
  }
  return { body, headers }
}

function refuse(request: IncomingMessage, response: ServerResponse, problem: Problem) {
  const { body, headers } = written(requestIdIn(request), problem, request.url)
  response.writeHead(problem.status, headers).end(body)
}

/**
 * Answers on a socket that has no response object, and ends it: what may still come is not read, or a client that was
 * told 408 could go on and have its request carried out.
 */
function refuseOnSocket(socket: Duplex, problem: Problem, requestId = requestIdOf(undefined)) {
  const { body, headers } = written(requestId, problem)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const { status } = problem
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy())
}

/** The response to the last request of a connection. */
const lastResponses = new WeakMap<Duplex, ServerResponse>()

function refuseBroken(error: NodeJS.ErrnoException, socket: Duplex) {
  const last = lastResponses.get(socket)
  const due = last?.writableFinished ? undefined : last
  // Amid an answer, a second one would only garble it.
  if (error.code === 'ECONNRESET' || !socket.writable || due?.headersSent) socket.destroy()
  // Garbage after a whole request: that one is being carried out, so its own answer must come, as the last one.
  else if (due?.req.complete) due.shouldKeepAlive = false
  // Answers to earlier requests come first: there is no way to get in line behind them.
  else if (due?.socket === null) socket.destroy()
  else refuseOnSocket(socket, PARSER_PROBLEMS[error.code ?? ''] ?? NOT_HTTP)
}

/** Node's listener for the app's `fetch`: what the app cannot be asked is refused in the form of its own problems. */
export function createListener(fetch: Parameters<typeof getRequestListener>[0]) {
  const respond = getRequestListener(fetch, {
    // Of an HTTP/1.0 request that names no host.
    hostname: 'localhost',
    // No URL can be made of the host and the target: left unanswered, because only the listener has the request.
    errorHandler: (error) => (error instanceof RequestError ? undefined : new Response(null, { status: 500 })),
  })
  return async function listener(request: IncomingMessage, response: ServerResponse) {
    lastResponses.set(request.socket, response)
    const fault = faultOf(request)
    if (fault === INVALID_TARGET && request.method === 'OPTIONS' && request.url === '*') {
      return void response.writeHead(204, { 'X-Request-Id': requestIdIn(request) }).end()
    }
    if (fault) return refuse(request, response, fault)
    await respond(request, response)
    if (!response.headersSent) refuse(request, response, INVALID_TARGET)
  }
}

/** Answers what never comes to the listener: what the parser refuses, what does not arrive in time, CONNECT. */
export function refuseTheRest(server: Server) {
  server.on('clientError', refuseBroken)
  server.on('connect', (request, socket: Duplex) => refuseOnSocket(socket, NO_PROXY, requestIdIn(request)))
  server.on('checkExpectation', (request, response) => refuse(request, response, UNKNOWN_EXPECTATION))
}
