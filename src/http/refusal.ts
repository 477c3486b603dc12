import type { Context } from 'hono'
import { mayBeDone } from '../db/unavailable.ts'
import { events } from '../events.ts'
import type { Refusal, Result } from '../resource.ts'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'
import { invalid } from './validate.ts'

/**
 * The row as it is after what `make` changes before the deadline that it is given. The audit trail hears of it, where there is one.
 * @param noun names what is changed, such as 'user'
 * @param id of what is there already
 * @throws Problem that says why it was refused
 */
export async function changed<T extends { id: number; version: number }>(
  c: Context<Env>,
  noun: string,
  operation: 'create' | 'update' | 'delete',
  make: (until: number) => Promise<Result<T>>,
  id?: number,
): Promise<T> {
  events.emit('changing')
  const result = await make(c.get('until')).catch((error) => {
    if (mayBeDone(error)) events.emit('changed', c, { operation, [noun]: id, outcome: 'unknown' })
    throw error
  })
  if ('outcome' in result && result.outcome === 'unchanged') return result.row
  if ('outcome' in result) throw problemOf(noun, result)
  events.emit('changed', c, { operation, [noun]: result.id, version: result.version, outcome: 'done' })
  return result
}

/**
 * What was found.
 * @throws Problem 404 if it is not there
 */
export function found<T>(noun: string, row: T | undefined): T {
  if (!row) throw problemOf(noun, { outcome: 'missing' })
  return row
}

/** The problem that tells a client why nothing was done; `noun` is the name of what it asked for, such as 'user'. */
export function problemOf(noun: string, refused: Refusal): Problem {
  switch (refused.outcome) {
    case 'missing':
      return new Problem(404, `There is no ${noun} with this id.`)
    case 'stale':
      return new Problem(412, `The ${noun}'s version does not meet the condition of the request.`)
    case 'key-reused':
      return new Problem(422, 'This Idempotency-Key belongs to another body.', { type: 'idempotency-key-reused' })
    case 'conflict':
      return new Problem(409, `Another ${noun} has this ${refused.fields.join(' and this ')}.`, {
        type: 'conflict',
        errors: refused.fields.map((field) => ({ pointer: `/${field}`, detail: `is taken by another ${noun}` })),
      })
    case 'referenced':
      return new Problem(409, `The ${noun} cannot be deleted: its ${refused.by} are still there.`, { type: 'conflict' })
    case 'reference-missing':
      return invalid([{ code: 'custom', path: [refused.field], message: 'names nothing that is there' }])
  }
}
