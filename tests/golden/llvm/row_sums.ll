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

define internal void @steps(ptr %context, i64 %tid) #0 {
entry:
  %slot0 = getelementptr ptr, ptr %context, i64 0
  %slot1 = getelementptr ptr, ptr %context, i64 1
  %slot2 = getelementptr ptr, ptr %context, i64 2
  %slot3 = getelementptr ptr, ptr %context, i64 3
  %slot4 = getelementptr ptr, ptr %context, i64 4
  %slot5 = getelementptr ptr, ptr %context, i64 5
  %slot6 = getelementptr ptr, ptr %context, i64 6
  %slot7 = getelementptr ptr, ptr %context, i64 7
  %slot8 = getelementptr ptr, ptr %context, i64 8
  %slot9 = getelementptr ptr, ptr %context, i64 9
  %threads = load i64, ptr %slot1
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
  %base2 = load ptr, ptr %slot2
  %base3 = load ptr, ptr %slot3
  %base4 = load ptr, ptr %slot4
  %base5 = load ptr, ptr %slot5
  %base6 = load ptr, ptr %slot6
  %base7 = load ptr, ptr %slot7
  %base8 = load ptr, ptr %slot8
  %base9 = load ptr, ptr %slot9
  %p0.0 = getelementptr i8, ptr %base8, i64 0
  %p0.1 = getelementptr i8, ptr %base9, i64 0
  %claimed0 = getelementptr i64, ptr %base4, i64 0
  %done0 = getelementptr i64, ptr %base4, i64 8
  br label %claim0
claim0:
  %claims0 = atomicrmw add ptr %claimed0, i64 1 monotonic
  %mine0 = icmp ult i64 %claims0, %shares
  br i1 %mine0, label %work0, label %wait0
work0:
  %share0 = call i64 @pick(ptr %claimed0, i64 %shares, i64 %tid)
  call void @row_sums(ptr %p0.0, ptr %p0.1, i64 %share0, i64 %shares)
  %before0 = atomicrmw add ptr %done0, i64 1 release
  br label %claim0
wait0:
  call void @await(ptr %done0, i64 %shares, ptr %context)
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  ret void
}

declare float @llvm.vector.reduce.fadd.v4f32(float, <4 x float>)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

attributes #0 = { nounwind "target-cpu"="x86-64-v3" "target-features"="" "prefer-vector-width"="256" "min-legal-vector-width"="256" }

!0 = distinct !{!0, !1}
!1 = !{!"llvm.loop.unroll.disable"}
