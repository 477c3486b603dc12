import * as z from 'zod'
import { MAX_ID, NO_ID } from '../db/columns.ts'

/** An id in an answer, in the description of the service. */
export const ID = { type: 'integer', format: 'int64', minimum: 1, maximum: MAX_ID, examples: [1] } as const

/** The `id` of a path in its one decimal form. One beyond the column's range passes, and is simply not found. */
export const PathId = z.object({
  id: z
    .string()
    .refine((id) => /^[1-9][0-9]*$/.test(id), 'must be a positive whole number')
    .transform((id) => (Number(id) <= MAX_ID ? Number(id) : NO_ID)),
})
