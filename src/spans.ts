import { AsyncLocalStorage } from 'node:async_hooks'
import type { Span } from '@opentelemetry/api'

/** The spans of the requests that the running code works for. Several where they share a statement; none without tracing. */
export const requestSpans = new AsyncLocalStorage<readonly Span[]>()
