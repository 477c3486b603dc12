import type { Config } from '../config.ts'
import { events } from '../events.ts'
import { createLog, type Output, requestFields } from './log.ts'
import { refuse } from './problem.ts'

/**
 * Writes a line of each change from now on. No level of the log switches these lines off, and none is dropped: while the
 * log is full, nothing is changed.
 */
export function startAudit(config: Config, output: Output) {
  const log = createLog({ ...config, LOG_LEVEL: 'info' }, { ...output, isFull: () => false })
  events.on('changing', () => {
    if (output.isFull()) throw refuse('log', 'Changes cannot be logged now, so none are made.')
  })
  events.on('changed', (c, change) => {
    const { issuer, subject } = c.get('identity') ?? {}
    log.info({ ...requestFields(c), issuer, subject, ...change }, 'audit')
  })
}
