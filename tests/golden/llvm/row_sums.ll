source_filename = "row_sums"
target triple = "x86_64-unknown-linux-gnu"

define internal void @row_sums(ptr noalias nocapture readonly %b0, ptr noalias nocapture %b1, i64 %share, i64 %shares) #0 {
entry:
  %r.acc.0 = alloca <4 x float>
  %t1 = mul nuw i64 %share, 4
  %t2 = add nuw i64 %share, 1
  %t3 = mul nuw i64 %t2, 4
  %t4 = udiv i64 %t1, %shares
  %t5 = udiv i64 %t3, %shares
  %t7 = icmp slt i64 %t4, %t5
  br i1 %t7, label %enter6, label %exit6
enter6:
  br label %body6
body6:
  %i6 = phi i64 [ %t4, %enter6 ], [ %t23, %exit8 ]
  store <4 x float> zeroinitializer, ptr %r.acc.0
  %t9 = mul nsw i64 %i6, 12
  %t10 = getelementptr float, ptr %b0, i64 %t9
  br label %body8
body8:
  %i8 = phi i64 [ 0, %body6 ], [ %t16, %body8 ]
  %t11 = mul nsw i64 %i8, 4
  %t12 = getelementptr float, ptr %t10, i64 %t11
  %t13 = load <4 x float>, ptr %t12, align 4
  %t14 = load <4 x float>, ptr %r.acc.0
  %t15 = fadd <4 x float> %t14, %t13
  store <4 x float> %t15, ptr %r.acc.0
  %t16 = add nsw i64 %i8, 1
  %t17 = icmp slt i64 %t16, 3
  br i1 %t17, label %body8, label %exit8, !llvm.loop !0
exit8:
  %t18 = load <4 x float>, ptr %r.acc.0
  %t19 = call reassoc float @llvm.vector.reduce.fadd.v4f32(float 0x8000000000000000, <4 x float> %t18)
  %t20 = fcmp ogt float 0x0000000000000000, %t19
  %t21 = select i1 %t20, float 0x0000000000000000, float %t19
  %t22 = getelementptr float, ptr %b1, i64 %i6
  store float %t21, ptr %t22, align 4
  %t23 = add nsw i64 %i6, 1
  %t24 = icmp slt i64 %t23, %t5
  br i1 %t24, label %body6, label %exit6, !llvm.loop !0
exit6:
  ret void
}

define internal void @await(ptr %counter, i64 %all, ptr %context) #0 {
entry:
  br label %look
look:
  %spins = phi i64 [ 0, %entry ], [ %more, %again ]
  %now = load atomic i64, ptr %counter acquire, align 8
  %there = icmp uge i64 %now, %all
  br i1 %there, label %done, label %again_or_let
again_or_let:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, 10000
  br i1 %long, label %let, label %pause
let:
  %shown = getelementptr ptr, ptr %context, i64 6
  %board = load ptr, ptr %shown
  %alone = icmp eq ptr %board, null
  br i1 %alone, label %yield, label %ask
ask:
  %way = getelementptr ptr, ptr %board, i64 4
  %rest = load ptr, ptr %way
  %restless = icmp eq ptr %rest, null
  br i1 %restless, label %yield, label %sleep
sleep:
  call i32 %rest(i32 20)
  br label %again
yield:
  %other = getelementptr ptr, ptr %context, i64 0
  %let_run = load ptr, ptr %other
  call i32 %let_run()
  br label %again
pause:
  call void @llvm.x86.sse2.pause()
  br label %again
again:
  br label %look
done:
  ret void
}

define internal i64 @pick(ptr %claimed, i64 %shares, i64 %tid) #0 {
entry:
  %caller = icmp eq i64 %tid, 0
  br i1 %caller, label %first, label %last
first:
  %where = getelementptr i64, ptr %claimed, i64 1
  %taken = load i64, ptr %where
  %more = add i64 %taken, 1
  store i64 %more, ptr %where
  ret i64 %taken
last:
  %there = getelementptr i64, ptr %claimed, i64 2
  %others = atomicrmw add ptr %there, i64 1 monotonic
  %from = sub i64 %shares, 1
  %share = sub i64 %from, %others
  ret i64 %share
}

define void @convdsl_run(ptr %context, i64 %stay) #0 {
entry:
  %slot = getelementptr ptr, ptr %context, i64 6
  %board = load ptr, ptr %slot
  %where = getelementptr i64, ptr %context, i64 7
  %ticket = load i64, ptr %where
  %none = icmp eq ptr %board, null
  %shown = getelementptr i64, ptr %board, i64 0
  %pinned = getelementptr i64, ptr %board, i64 1
  %code = getelementptr i64, ptr %board, i64 2
  %seats = getelementptr i64, ptr %board, i64 3
  %inside = getelementptr i64, ptr %board, i64 8
  %awake = getelementptr i64, ptr %board, i64 16
  %caller = icmp eq i64 %stay, 0
  br i1 %caller, label %lead, label %help

lead:
  br i1 %none, label %alone, label %pin
alone:
  call void @steps(ptr %context, i64 0)
  br label %done
pin:
  store atomic ptr @steps, ptr %code monotonic, align 8
  store atomic ptr %context, ptr %pinned release, align 8
  store atomic i64 %ticket, ptr %shown release, align 8
  call void @steps(ptr %context, i64 0)
  store atomic ptr null, ptr %pinned seq_cst, align 8
  %visitors = load atomic i64, ptr %inside seq_cst, align 8
  store i64 %visitors, ptr %where
  br label %done

help:
  call void @steps(ptr %context, i64 1)
  br i1 %none, label %done, label %stay_awake
stay_awake:
  %others = atomicrmw add ptr %awake, i64 1 monotonic
  br label %look
look:
  %seen = phi i64 [ %ticket, %stay_awake ], [ %seen, %pause ], [ %now, %leave ]
  %spins = phi i64 [ 0, %stay_awake ], [ %more, %pause ], [ 0, %leave ]
  %now = load atomic i64, ptr %shown acquire, align 8
  %new = icmp ne i64 %now, %seen
  br i1 %new, label %join, label %wait
wait:
  %enough = icmp uge i64 %spins, %stay
  br i1 %enough, label %sleep, label %pause
pause:
  call void @llvm.x86.sse2.pause()
  %more = add i64 %spins, 1
  br label %look
join:
  %before = atomicrmw add ptr %inside, i64 1 seq_cst
  %call = load atomic ptr, ptr %pinned seq_cst, align 8
  %open = icmp ne ptr %call, null
  br i1 %open, label %sit, label %leave
sit:
  %left = atomicrmw sub ptr %seats, i64 1 monotonic
  %seat = icmp sgt i64 %left, 0
  br i1 %seat, label %work, label %leave
work:
  %function = load atomic ptr, ptr %code monotonic, align 8
  call void %function(ptr %call, i64 1)
  br label %leave
leave:
  %after = atomicrmw sub ptr %inside, i64 1 release
  br label %look
sleep:
  %fewer = atomicrmw sub ptr %awake, i64 1 monotonic
  br label %done
done:
  ret void
}

declare void @llvm.x86.sse2.pause()

@steps.code = internal constant [1 x i32] [i32 trunc (i64 sub (i64 ptrtoint (ptr @row_sums to i64), i64 ptrtoint (ptr getelementptr (i32, ptr @steps.code, i64 0) to i64)) to i32)]
@steps.firsts = internal constant [2 x i32] [i32 0, i32 2]
@steps.bases = internal constant [2 x i32] [i32 8, i32 9]
@steps.offsets = internal constant [2 x i64] [i64 0, i64 0]

define internal void @steps(ptr %context, i64 %tid) #0 {
entry:
  %operands = alloca [2 x ptr]
  %counters_slot = getelementptr ptr, ptr %context, i64 4
  %counters = load ptr, ptr %counters_slot
  %threads_slot = getelementptr ptr, ptr %context, i64 1
  %threads = load i64, ptr %threads_slot
  %alone = icmp ule i64 %threads, 1
  %many = mul i64 %threads, 4
  %shares = select i1 %alone, i64 1, i64 %many
  %mode = alloca i32
  %flushing = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %old = load i32, ptr %mode
  %new = or i32 %old, 32832
  store i32 %new, ptr %flushing
  call void @llvm.x86.sse.ldmxcsr(ptr %flushing)
  br label %ready
ready:
  br label %go
go:
  br label %each_step
each_step:
  %step = phi i64 [ 0, %go ], [ %next, %finished ]
  %first_at = getelementptr i32, ptr @steps.firsts, i64 %step
  %first_short = load i32, ptr %first_at
  %first = sext i32 %first_short to i64
  %next = add i64 %step, 1
  %last_at = getelementptr i32, ptr @steps.firsts, i64 %next
  %last_short = load i32, ptr %last_at
  %last = sext i32 %last_short to i64
  br label %operand
operand:
  %number = phi i64 [ %first, %each_step ], [ %number_after, %operand ]
  %base_at = getelementptr i32, ptr @steps.bases, i64 %number
  %base_short = load i32, ptr %base_at
  %base = sext i32 %base_short to i64
  %offset_at = getelementptr i64, ptr @steps.offsets, i64 %number
  %offset = load i64, ptr %offset_at
  %held_slot = getelementptr ptr, ptr %context, i64 %base
  %held = load ptr, ptr %held_slot
  %operand_value = getelementptr i8, ptr %held, i64 %offset
  %position = sub i64 %number, %first
  %operand_place = getelementptr ptr, ptr %operands, i64 %position
  store ptr %operand_value, ptr %operand_place
  %number_after = add i64 %number, 1
  %more_operands = icmp slt i64 %number_after, %last
  br i1 %more_operands, label %operand, label %called
called:
  %distance_at = getelementptr i32, ptr @steps.code, i64 %step
  %distance_short = load i32, ptr %distance_at
  %distance = sext i32 %distance_short to i64
  %kernel = getelementptr i8, ptr %distance_at, i64 %distance
  %arity = sub i64 %last, %first
  %claimed_bytes = mul i64 %step, 128
  %claimed = getelementptr i8, ptr %counters, i64 %claimed_bytes
  %done = getelementptr i8, ptr %claimed, i64 64
  br label %claim
claim:
  %claims = atomicrmw add ptr %claimed, i64 1 monotonic
  %mine = icmp ult i64 %claims, %shares
  br i1 %mine, label %work, label %wait
work:
  %share = call i64 @pick(ptr %claimed, i64 %shares, i64 %tid)
  switch i64 %arity, label %with2 []
with2:
  %place2.0 = getelementptr ptr, ptr %operands, i64 0
  %p2.0 = load ptr, ptr %place2.0
  %place2.1 = getelementptr ptr, ptr %operands, i64 1
  %p2.1 = load ptr, ptr %place2.1
  call void %kernel(ptr %p2.0, ptr %p2.1, i64 %share, i64 %shares)
  br label %worked
worked:
  %dones = atomicrmw add ptr %done, i64 1 release
  br label %claim
wait:
  call void @await(ptr %done, i64 %shares, ptr %context)
  br label %finished
finished:
  %more_steps = icmp slt i64 %next, 1
  br i1 %more_steps, label %each_step, label %leave
leave:
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  ret void
}

declare float @llvm.vector.reduce.fadd.v4f32(float, <4 x float>)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

attributes #0 = { nounwind "no-jump-tables"="true" "target-cpu"="x86-64-v3" "target-features"="" "prefer-vector-width"="256" "min-legal-vector-width"="256" }

!0 = distinct !{!0, !1}
!1 = !{!"llvm.loop.unroll.disable"}
