import * as z from 'zod'
import { MAX_ID, NO_ID } from '../db/columns.ts'

/** The `id` of a path in its one decimal form. One beyond the column's range passes, and is simply not found. */
export const PathId = z.object({
  id: z
    .string()
    .regex(/^[1-9][0-9]*$/, 'must be a positive whole number')
    .transform((id) => (Number(id) <= MAX_ID ? Number(id) : NO_ID)),
})
