import { AsyncLocalStorage } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import type { Span } from '@opentelemetry/api'
import type { Context } from 'hono'

/** What only so many of may be under way: requests in all, large bodies that arrive, streams, and waits for a token's keys. */
const LIMITED = ['requests', 'bodies', 'streams', 'keys'] as const
export type Limited = (typeof LIMITED)[number]

/**
 * Why a request was refused: 503 as too many are under way, the process stops, the database or a token's issuer cannot be
 * asked, or the log not be written; 429 as its client has used up its quota. Or a connection was closed at once, because
 * there were too many.
 */
export const REFUSALS = [...LIMITED, 'stopping', 'database', 'log', 'quota', 'connections'] as const
export type Refusal = (typeof REFUSALS)[number]

/** What metrics and traces are made of. Where nobody listens, it costs next to nothing. */
export const events = new EventEmitter<{
  /** A request has its answer, `ms` after it came. */
  answered: [c: Context, ms: number]
  refused: [why: Refusal]
  /** A row is about to be changed. A listener that throws prevents it. */
  changing: []
  /** The row of a resource was changed, or may have been: these are the fields of a line of the log. */
  changed: [c: Context, change: object]
  /**
   * A statement was answered, or its answer was lost, `ms` after it was sent for the requests of these spans. `errorType` is
   * the SQLSTATE where PostgreSQL refused it, 'lost' where no answer came.
   */
  statement: [text: string, ms: number, spans: readonly Span[], errorType: string | undefined]
  /** So many requests are about to share a statement. */
  batch: [gather: 'gets' | 'pages' | 'inserts', size: number]
}>()

/** How many are under way now, in this process. */
export const underWay: Record<Limited, number> = { requests: 0, bodies: 0, streams: 0, keys: 0 }

/** The spans of the requests that the running code works for. Several where they share a statement; none without tracing. */
export const requestSpans = new AsyncLocalStorage<readonly Span[]>()
